"""The circuit: when it opens, whom it lets through, when it closes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from shared.errors import CircuitOpenError
from shared.resilience import Circuit, CircuitBreaker


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def changes() -> list[Circuit]:
    return []


@pytest.fixture
def circuit(clock: Clock, changes: list[Circuit]) -> CircuitBreaker:
    return CircuitBreaker(
        "credit-service",
        failures=3,
        pause_seconds=lambda trips: 10.0 * trips,
        on_change=changes.append,
        clock=clock,
    )


def state_of(circuit: CircuitBreaker) -> str:
    return circuit.state


def fail(circuit: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        with circuit.call() as call:
            call.failed()


def succeed(circuit: CircuitBreaker) -> None:
    with circuit.call() as call:
        call.succeeded()


def test_failures_in_a_row_open_it(circuit: CircuitBreaker) -> None:
    fail(circuit, 2)
    succeed(circuit)
    fail(circuit, 2)
    assert state_of(circuit) == "closed"
    fail(circuit)
    assert state_of(circuit) == "open"


def test_while_it_is_open_nobody_is_let_through(circuit: CircuitBreaker) -> None:
    before = datetime.now(UTC)
    fail(circuit, 3)
    with pytest.raises(CircuitOpenError) as refused, circuit.call():
        pytest.fail("let through")
    error = refused.value
    assert (error.service_name, error.failure_count, error.retryable) == (
        "credit-service",
        3,
        False,
    )
    assert error.open_until is not None
    assert datetime.fromisoformat(error.open_until) > before
    assert error.details["retry_after"] == 10


def test_one_call_at_a_time_tries_and_its_success_closes(
    circuit: CircuitBreaker, clock: Clock, changes: list[Circuit]
) -> None:
    fail(circuit, 3)
    clock.now = 10
    assert state_of(circuit) == "half_open"
    with circuit.call() as call:
        with pytest.raises(CircuitOpenError), circuit.call():
            pytest.fail("a second call was let through")
        call.succeeded()
    assert state_of(circuit) == "closed"
    assert circuit.status.open_until is None
    assert changes == ["open", "half_open", "closed"]
    fail(circuit, 2)
    assert state_of(circuit) == "closed"


def test_a_failed_try_opens_it_again_for_the_next_pause(
    circuit: CircuitBreaker, clock: Clock
) -> None:
    fail(circuit, 3)
    clock.now = 10
    fail(circuit)
    assert state_of(circuit) == "open"
    clock.now = 29.9
    assert state_of(circuit) == "open"
    clock.now = 30
    succeed(circuit)
    assert state_of(circuit) == "closed"
    fail(circuit, 3)
    clock.now = 40
    assert state_of(circuit) == "half_open"


def test_a_cancelled_try_leaves_the_place_to_the_next(
    circuit: CircuitBreaker, clock: Clock
) -> None:
    fail(circuit, 3)
    clock.now = 10
    with pytest.raises(asyncio.CancelledError), circuit.call():
        raise asyncio.CancelledError
    assert state_of(circuit) == "half_open"
    succeed(circuit)
    assert state_of(circuit) == "closed"


def test_a_late_end_of_an_old_call_changes_nothing(circuit: CircuitBreaker, clock: Clock) -> None:
    with circuit.call() as old:
        fail(circuit, 3)
        old.succeeded()
    assert state_of(circuit) == "open"

    clock.now = 10
    with circuit.call() as trying:
        trying.succeeded()
    with circuit.call() as older:
        fail(circuit, 3)
        clock.now = 30
        with circuit.call() as trying:
            older.failed()
            trying.succeeded()
    assert state_of(circuit) == "closed"


def test_the_status_is_what_a_probe_shows(circuit: CircuitBreaker) -> None:
    fail(circuit, 3)
    status = circuit.status
    assert (status.service, status.state, status.failures) == ("credit-service", "open", 3)
    assert status.open_until is not None


async def test_who_waits_for_admission_is_let_in_one_at_a_time(
    circuit: CircuitBreaker, clock: Clock
) -> None:
    fail(circuit, 3)
    clock.now = 10
    admitted: list[int] = []

    async def wait(number: int) -> None:
        if await circuit.admission():
            admitted.append(number)

    async with asyncio.TaskGroup() as tasks:
        for number in range(3):
            tasks.create_task(wait(number))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert admitted == [0]
        circuit.abandoned()
        while len(admitted) < 2:
            await asyncio.sleep(0)
        assert admitted == [0, 1]
        circuit.succeeded()
    assert admitted == [0, 1, 2]


async def test_stopped_it_sends_those_away_who_wait(circuit: CircuitBreaker) -> None:
    assert await circuit.admission()
    fail(circuit, 3)
    waiting = asyncio.create_task(circuit.admission())
    await asyncio.sleep(0)
    circuit.stop()
    assert not await waiting
    assert not await circuit.admission()


def test_a_failure_from_before_it_opened_does_not_prolong_the_pause(
    circuit: CircuitBreaker, clock: Clock
) -> None:
    fail(circuit, 3)
    clock.now = 9
    circuit.failed(ConnectionRefusedError())
    clock.now = 10
    assert state_of(circuit) == "half_open"
