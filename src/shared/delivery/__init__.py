"""Where database and messages meet: both change together, each message takes effect once."""

from shared.delivery.idempotency import (
    Answer,
    IdempotencyKeyInUseError,
    IdempotencyKeyReusedError,
    IdempotencyKeys,
    KeyedRequest,
    create_idempotency_table,
    drop_idempotency_table,
)
from shared.delivery.inbox import Inbox
from shared.delivery.janitor import Janitor
from shared.delivery.outbox import Outbox, UndeclaredContractError
from shared.delivery.relay import Backlog, Relay, RelayStatus
from shared.delivery.tables import create_delivery_tables, drop_delivery_tables
from shared.delivery.unit_of_work import (
    CommitInDoubtError,
    UnitOfWork,
    UnitOfWorkFactory,
    run_unit_of_work,
)

__all__ = [
    "Answer",
    "Backlog",
    "CommitInDoubtError",
    "IdempotencyKeyInUseError",
    "IdempotencyKeyReusedError",
    "IdempotencyKeys",
    "Inbox",
    "Janitor",
    "KeyedRequest",
    "Outbox",
    "Relay",
    "RelayStatus",
    "UndeclaredContractError",
    "UnitOfWork",
    "UnitOfWorkFactory",
    "create_delivery_tables",
    "create_idempotency_table",
    "drop_delivery_tables",
    "drop_idempotency_table",
    "run_unit_of_work",
]
