"""What is refused before a service runs, and in which words."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from pydantic import BaseModel

from shared.delivery import UnitOfWork
from shared.events import Contract
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
