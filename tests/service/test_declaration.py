"""What is refused before a service runs, and in which words."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pydantic import BaseModel

from shared.config import ServiceSettings
from shared.delivery import UnitOfWork
from shared.events import Contract
from shared.messaging import CallNext, Delivery
from shared.service import DeclarationError, Provisions, Service
from shared.service.handlers import Handler
from shared.service.providers import Provider


class Parcel(BaseModel):
    weight: int


class OtherPayload(BaseModel):
    size: int


SHIP = Contract("cmd.merchant.ship", Parcel)


def test_a_name_that_is_not_kebab_case_is_refused() -> None:
    with pytest.raises(DeclarationError, match="like credit-service"):
        Service("Credit_Service")


def test_declaring_a_service_reads_no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDIT_API__PORT", "not a port")
    assert Service("credit-service").schema == "credit"


def test_a_plain_handler_is_refused_what_a_thread_cannot_have() -> None:
    def ship(parcel: Parcel, uow: UnitOfWork) -> None: ...

    def send(parcel: Parcel) -> None: ...

    async def track(parcel: Parcel) -> AsyncIterator[None]:
        yield

    with pytest.raises(DeclarationError, match=r"no UnitOfWork .*: make it async def .*ship"):
        Handler.of(SHIP, ship)
    with pytest.raises(DeclarationError, match=r"nothing can cancel: make it async def .*send"):
        Handler.of(SHIP, send, deadline_seconds=5)
    with pytest.raises(DeclarationError, match="track is a generator"):
        Handler.of(SHIP, track)
    assert Handler.of(SHIP, send).blocking


def test_what_is_not_a_contract_is_refused_with_its_value() -> None:
    with pytest.raises(DeclarationError, match=r"cannot publish 'evt\.invoice.paid', which is not"):
        Service("till-service", publishes=["evt.invoice.paid"])  # type: ignore[list-item]
    with pytest.raises(DeclarationError, match="publishes is one Contract: it must be a list"):
        Service("till-service", publishes=SHIP)  # type: ignore[arg-type]
    service = Service("till-service")
    with pytest.raises(DeclarationError, match=r"cannot handle <function .*not a Contract"):

        @service.handles  # type: ignore[arg-type] # without parentheses nothing would be handled
        async def forgotten(parcel: Parcel) -> None: ...


async def one_argument(delivery: Delivery) -> None: ...


def not_async(delivery: Delivery, call_next: CallNext) -> None: ...


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([not_async], r"not_async is not async: it must be async def step\((delivery|message), "),
        ([one_argument], "one_argument: too many positional arguments: it must be async def"),
        (["sign"], "'sign' is not a function"),
        (one_argument, "it must be a list, "),
    ],
)
def test_a_middleware_that_could_not_work_is_refused_when_it_is_declared(
    steps: Any, told: str
) -> None:
    with pytest.raises(DeclarationError, match=told):
        Service("till-service", middleware=steps)
    with pytest.raises(DeclarationError, match=told):
        Service("till-service", publish_middleware=steps)
    service = Service("till-service")
    with pytest.raises(DeclarationError, match=told):
        service.handles(SHIP, middleware=steps)


def test_a_middleware_added_later_is_looked_at_when_the_service_is_assembled() -> None:
    service = Service("till-service")
    late: Any = not_async
    service.middleware.append(late)
    with pytest.raises(DeclarationError, match="not_async is not async"):
        service.assemble(ServiceSettings())


def test_a_parameter_without_annotation_is_named() -> None:
    async def ship(parcel) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001

    with pytest.raises(DeclarationError, match="annotate the parameter parcel"):
        Handler.of(SHIP, ship)


def test_a_payload_of_another_contract_is_refused() -> None:
    async def ship(parcel: OtherPayload) -> None: ...

    with pytest.raises(DeclarationError, match=r"cmd\.merchant\.ship carries Parcel"):
        Handler.of(SHIP, ship)


def test_two_handlers_of_one_name_are_refused() -> None:
    service = Service("ship-service")

    @service.handles(SHIP)
    async def ship(parcel: Parcel) -> None: ...

    with pytest.raises(DeclarationError, match="has a handler ship already"):
        service.handles(SHIP)(ship)


def test_a_handler_with_a_unit_of_work_is_transactional() -> None:
    async def ship(parcel: Parcel, uow: UnitOfWork) -> None: ...

    handler = Handler.of(SHIP, ship)
    assert handler.transactional
    assert handler.durable("ship-service") == "ship-service-ship"


def test_a_provider_without_a_yield_is_refused() -> None:
    async def parcel() -> Parcel:
        return Parcel(weight=1)

    with pytest.raises(DeclarationError, match="async generator"):
        Provider.of(parcel)  # type: ignore[arg-type]


async def test_providers_are_entered_after_their_needs_and_left_in_reverse() -> None:
    steps: list[str] = []

    async def parcel(weight: int) -> AsyncIterator[Parcel]:
        steps.append("+parcel")
        yield Parcel(weight=weight)
        steps.append("-parcel")

    async def weight() -> AsyncIterator[int]:
        steps.append("+weight")
        yield 3
        steps.append("-weight")

    provisions = Provisions()
    async with AsyncExitStack() as stack:
        await provisions.enter([Provider.of(parcel), Provider.of(weight)], stack)
        assert provisions.get(Parcel).weight == 3
    assert steps == ["+weight", "+parcel", "-parcel", "-weight"]


async def test_a_circle_of_needs_is_named() -> None:
    async def parcel(size: OtherPayload) -> AsyncIterator[Parcel]:
        yield Parcel(weight=size.size)

    async def size(parcel: Parcel) -> AsyncIterator[OtherPayload]:
        yield OtherPayload(size=parcel.weight)

    async with AsyncExitStack() as stack:
        with pytest.raises(DeclarationError, match=r"in a circle: .*Parcel"):
            await Provisions().enter([Provider.of(parcel), Provider.of(size)], stack)


async def test_a_need_nobody_provides_is_named() -> None:
    async def parcel(size: OtherPayload) -> AsyncIterator[Parcel]:
        yield Parcel(weight=size.size)

    async with AsyncExitStack() as stack:
        with pytest.raises(DeclarationError, match="Parcel needs OtherPayload"):
            await Provisions().enter([Provider.of(parcel)], stack)
