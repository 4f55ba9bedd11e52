import pytest
from sqlalchemy import text

from shared.config import DeliverySettings
from shared.database import Database
from shared.delivery import (
    Answer,
    IdempotencyKeyInUseError,
    IdempotencyKeyReusedError,
    IdempotencyKeys,
    Janitor,
    KeyedRequest,
)

REQUEST = KeyedRequest("order-7", b"fingerprint", tenant_id="shop-1", user_id="ada")
ANSWER = Answer(201, (("location", "/orders/7"), ("link", "a"), ("link", "b")), b"\x00body")


async def answer(database: Database, request: KeyedRequest) -> Answer | None:
    """Answer the request, if it was not before; what it was answered before."""
    async with database.transaction() as session:
        keys = IdempotencyKeys(session)
        known = await keys.claim(request)
        if known is None:
            keys.remember(request, ANSWER)
        return known


async def test_an_answer_is_known_once_it_is_committed(database: Database) -> None:
    assert await answer(database, REQUEST) is None
    assert await answer(database, REQUEST) == ANSWER


async def test_while_the_first_works_others_are_told_at_once_and_may_come_after_its_rollback(
    database: Database,
) -> None:
    async with database.session_factory() as first:
        assert await IdempotencyKeys(first).claim(REQUEST) is None
        async with database.session_factory() as second:
            with pytest.raises(IdempotencyKeyInUseError):
                await IdempotencyKeys(second).claim(REQUEST)
        IdempotencyKeys(first).remember(REQUEST, ANSWER)
        await first.flush()
    assert await answer(database, REQUEST) is None


async def test_who_finds_the_key_taken_gets_the_answer_that_is_committed_meanwhile(
    database: Database,
) -> None:
    await answer(database, REQUEST)
    async with database.session_factory() as first, database.session_factory() as second:
        assert await IdempotencyKeys(first).claim(REQUEST) == ANSWER
        assert await IdempotencyKeys(second).claim(REQUEST) == ANSWER


async def test_another_request_under_the_key_is_refused(database: Database) -> None:
    await answer(database, REQUEST)
    other = KeyedRequest("order-7", b"another", tenant_id="shop-1", user_id="ada")
    with pytest.raises(IdempotencyKeyReusedError):
        await answer(database, other)


@pytest.mark.parametrize(
    "other",
    [
        KeyedRequest("order-7", b"fingerprint", tenant_id="shop-2", user_id="ada"),
        KeyedRequest("order-7", b"fingerprint", tenant_id="shop-1", user_id="bob"),
        KeyedRequest("order-7", b"fingerprint"),
    ],
)
async def test_keys_of_different_callers_have_nothing_to_do_with_each_other(
    database: Database, other: KeyedRequest
) -> None:
    await answer(database, REQUEST)
    async with database.session_factory() as session:
        await IdempotencyKeys(session).claim(REQUEST)
        assert await answer(database, other) is None


async def test_keys_of_different_schemas_do_not_lock_each_other(database: Database) -> None:
    async with Database(database.settings, schema="other") as neighbour:
        async with database.transaction() as session:
            await session.execute(text("CREATE SCHEMA other"))
            await session.execute(
                text("CREATE TABLE other.idempotency_keys (LIKE idempotency_keys INCLUDING ALL)")
            )
        async with database.session_factory() as session:
            await IdempotencyKeys(session).claim(REQUEST)
            assert await answer(neighbour, REQUEST) is None


async def test_the_janitor_forgets_what_is_past_its_retention_and_nothing_else(
    database: Database,
) -> None:
    new = KeyedRequest("order-8", b"fingerprint")
    await answer(database, REQUEST)
    await answer(database, new)
    async with database.transaction() as session:
        await session.execute(
            text("""UPDATE idempotency_keys SET answered_at = now() - interval '25 hours'
            WHERE key = 'order-7'""")
        )
    janitor = Janitor(database, DeliverySettings())
    assert await janitor.sweep() == 1
    assert await answer(database, new) == ANSWER
    assert await answer(database, REQUEST) is None


async def test_the_janitor_works_where_no_route_has_keys(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text("DROP TABLE idempotency_keys"))
    assert await Janitor(database, DeliverySettings()).sweep() == 0
