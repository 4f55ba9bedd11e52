"""The private parts of libraries that the package touches are still there, under their names.

Each of these libraries has an upper bound in `pyproject.toml`: a release beyond it may have moved
what it never promised. Whoever raises a bound learns here what has gone, and who has need of it.
"""

from __future__ import annotations

import inspect
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# distribution, where in it, the private names, who touches them
PARTS = [
    (
        "alembic",
        "alembic.autogenerate.render",
        ("_repr_type",),
        "database/migrations/model_operations.py",
    ),
    ("asyncpg", "asyncpg.connection:Connection", ("_transport",), "database/engine/pool.py"),
    (
        "fastapi",
        "fastapi.routing",
        ("effective_route_context", "original_route", "starlette_route"),
        "metrics/http.py",
    ),
    ("fastapi", "fastapi.routing", ("iter_route_contexts",), "api/openapi.py"),
    (
        "limits",
        "limits.aio.storage:MemoryStorage",
        ("storage", "expirations", "acquire_sliding_window_entry", "get_sliding_window"),
        "api/rate_limits/counters.py",
    ),
    (
        "nats-py",
        "nats.aio.client:Client",
        ("_process_msg", "_process_headers", "_parse_header_lines", "_subs", "_error_cb"),
        "messaging/connection/client.py",
    ),
    (
        "nats-py",
        "nats.aio.subscription:Subscription",
        ("_id", "_received"),
        "messaging/connection/client.py",
    ),
    (
        "nats-py",
        "nats.aio.client:Client",
        ("_pending", "_pending_data_size", "_send_command", "_flush_queue", "_flush_pending"),
        "messaging/publishing/wire.py",
    ),
    ("nats-py", "nats.aio.client:Client", ("_server_info",), "messaging/streams/facts.py"),
    (
        "prometheus-client",
        "prometheus_client:Histogram",
        ("_upper_bounds", "_sum", "_buckets"),
        "metrics/histogram.py",
    ),
    (
        "sqlalchemy",
        "sqlalchemy.dialects.postgresql.asyncpg:AsyncAdapt_asyncpg_connection",
        ("_start_transaction", "_handle_exception"),
        "database/engine/first_statement.py",
    ),
    (
        "sqlalchemy",
        "sqlalchemy.orm:Mapper",
        ("_identity_key_from_state",),
        "database/repository/autocommit.py",
    ),
    (
        "sqlalchemy",
        "sqlalchemy.orm.state:InstanceState",
        ("_commit_all",),
        "database/repository/autocommit.py",
    ),
    (
        "sqlalchemy",
        "sqlalchemy.event.attr:_ClsLevelDispatch",
        ("_clslevel",),
        "database/repository/autocommit.py",
    ),
    (
        "sqlalchemy",
        "sqlalchemy.orm:CompositeProperty",
        ("_composite_values_from_instance",),
        "database/repository/bulk.py",
    ),
    (
        "sqlalchemy",
        "sqlalchemy.orm.strategy_options",
        ("_WildcardLoad", "_set_relationship_strategy", "_DEFAULT_TOKEN"),
        "database/repository/loading.py",
    ),
    ("starlette", "starlette.requests:Request", ("_body",), "api/exception_handlers.py"),
    ("uvicorn", "uvicorn:Server", ("startup", "handle_exit", "force_exit"), "service/server.py"),
]


@pytest.mark.parametrize(("distribution", "place", "names", "who"), PARTS)
def test_what_is_private_and_needed_is_there(
    distribution: str, place: str, names: tuple[str, ...], who: str
) -> None:
    module, _, attribute = place.partition(":")
    owner = import_module(module)
    owner = getattr(owner, attribute) if attribute else owner
    source = inspect.getsource(owner)
    gone = [name for name in names if not hasattr(owner, name) and name not in source]
    assert not gone, f"{distribution} has no {', '.join(gone)} in {place} now: see {who}"


def test_each_library_with_such_parts_has_an_upper_bound() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    unbounded = [
        name
        for name in sorted({distribution for distribution, *_ in PARTS})
        for line in project["dependencies"]
        if line.startswith(name) and "<" not in line
    ]
    assert unbounded == []


def test_who_touches_them_is_there() -> None:
    assert [who for *_, who in PARTS if not (ROOT / "src/shared" / who).exists()] == []
