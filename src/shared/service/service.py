"""The declaration of a service: its settings, contracts, streams, routes, handlers and providers.

A ``Service`` is what a module says about itself. It reads nothing and starts nothing when it is
made; ``assemble`` (or running it) makes the ``Application`` that does the work.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from typing_extensions import TypeVar

from shared.config import ServiceSettings, explain, load_settings
from shared.service.application import Application
from shared.service.declaration import Declared
from shared.service.server import serve

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


S = TypeVar("S", bound=ServiceSettings, default=ServiceSettings)


class Service(Declared[S]):
    """A service, declared.

    It is an ASGI application itself, so any ASGI server runs it (``uvicorn module:service``), and
    ``service.run()`` runs it with uvicorn and a drain on SIGTERM.

    >>> PAID = Contract("evt.invoice.paid", Paid)
    >>> service = Service("invoice-service", publishes=[PAID])
    >>> service.schema, service.streams.holding(PAID.subject).name
    ('invoice', 'INVOICE')

    Args:
        name: kebab case, as the platform knows it: ``credit-service``. It names the configuration
            file, the environment prefix (``CREDIT``), the database schema (``credit``), the durable
            consumers and the ``source_service`` of its events.
        settings: its settings class; loaded when the service is assembled.
        publishes: the contracts it may put into its outbox. Anything else is refused there.
        streams: definitions, or a table of them, where the convention does not suit (stream
            ``INVOICE`` holds ``evt.invoice.>`` and ``cmd.invoice.>``). Those that its contracts
            need are created at the start; one that nobody defined is created by who publishes its
            events or handles its commands, and awaited by who reads it.
        migrations: package (or folder) of its Alembic revisions, run on start under a lock. The
            default creates only the outbox and inbox.
        schema: PostgreSQL schema; by default the name without ``-service``, ``-`` as ``_``.
        version: told in OpenAPI and in the metadata of its events.
        middleware: steps around every handler, each ``async def step(delivery, call_next)``, the
            first outermost; they see the message before it is read, so that one may decrypt it. A
            batch is one call, with a ``Batch``. The list may be added to until it is assembled.
        publish_middleware: steps around everything it publishes, each ``async def step(message,
            call_next)``; what is in the outbox goes through them when the relay sends it.

    Raises:
        DeclarationError: the name is not kebab case, what it publishes is not a contract or is a
            filter, a middleware is not an async function, or two streams contradict each other or
            overlap.
    """

    def load_settings(self) -> S:
        """Read the settings from files and environment.

        Raises:
            ConfigError: names every mistake found.
        """
        return load_settings(self.settings_type, self.name)

    def assemble(self, settings: S | None = None) -> Application[S]:
        """Make the application that runs this service; each call makes an independent one.

        Raises:
            ConfigError: no settings given and those found are wrong.
        """
        if settings is not None:
            return Application(self, settings)
        return Application(
            self,
            self.load_settings(),
            configuration=explain(self.settings_type, self.name),
        )

    @cached_property
    def application(self) -> Application[S]:
        """The application of this process, assembled on first use."""
        return self.assemble()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve ASGI."""
        await self.application.asgi(scope, receive, send)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain; a second signal ends it at once."""
        serve(self.application)
