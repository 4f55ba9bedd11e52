"""What an HTTP route may ask for: the unit of work and provided objects.

The unit of work commits before the response is sent: a client never hears "done" for what could
still fail. (FastAPI leaves a dependency's exit until after the response unless its scope is
"function".)
"""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from starlette.requests import HTTPConnection

from shared.api import raises
from shared.delivery import UnitOfWork, UnitOfWorkFactory
from shared.errors import DatabaseError
from shared.service.application import Application

T = TypeVar("T")


def application_of(connection: HTTPConnection) -> Application[Any]:
    """Return the application that serves ``connection``.

    Raises:
        RuntimeError: the route is not served by a ``Service``.
    """
    application = getattr(connection.app.state, "application", None)
    if not isinstance(application, Application):
        raise RuntimeError("this route is not served by a shared.service.Service")  # noqa: TRY004
    return application


@raises(DatabaseError)
async def _unit_of_work(connection: HTTPConnection) -> AsyncIterator[UnitOfWork]:
    async with application_of(connection).unit_of_work() as uow:
        yield uow


UnitOfWorkDep = Annotated[UnitOfWork, Depends(_unit_of_work, scope="function")]
"""The unit of work of this request: committed when the route returns, rolled back if it raises.

>>> @service.router.post("/invoices/{number}/paid")
... async def pay(number: str, uow: UnitOfWorkDep) -> None:
...     uow.outbox.add(PAID, Paid(number=number))
>>> async with running(service) as client:
...     (await client.post("/api/v1/invoices/7/paid")).status_code
200
"""


@raises(DatabaseError)
async def _read_only_unit_of_work(connection: HTTPConnection) -> AsyncIterator[UnitOfWork]:
    async with _factory(connection)(read_only=True) as uow:
        yield uow


ReadOnlyUnitOfWorkDep = Annotated[UnitOfWork, Depends(_read_only_unit_of_work, scope="function")]
"""A unit of work that only reads; a standby may answer, see `shared.database.Database.session`."""


def _factory(connection: HTTPConnection) -> UnitOfWorkFactory:
    return application_of(connection).provisions.get(UnitOfWorkFactory)


UnitOfWorkFactoryDep = Annotated[UnitOfWorkFactory, Depends(_factory)]
"""Makes units of work, for a route that decides itself when one begins and whether it is tried
again: ``await units.run(work, isolation="serializable")``."""


def Provided(kind: type[T]) -> Any:  # noqa: N802 - reads like Depends, and is one
    """Make the dependency on the provided object of type ``kind``.

    The settings are provided as well.

    >>> @service.router.get("/sender")
    ... async def sender(mailer: Annotated[Mailer, Provided(Mailer)]) -> str:
    ...     return mailer.sender
    >>> async with running(service) as client:
    ...     (await client.get("/api/v1/sender")).json()
    'till@example.com'

    A request raises:
        LookupError: nothing provides it in this service.
    """

    def provided(connection: HTTPConnection) -> T:
        return application_of(connection).provisions.get(kind)

    dependency: Callable[[HTTPConnection], T] = provided
    return Depends(dependency)
