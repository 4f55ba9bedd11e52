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
from shared.delivery.inbox import Inbox, check_inbox_retention
from shared.delivery.outbox.outbox import Outbox, UndeclaredContractError
from shared.delivery.outbox.rebuild import Rebuilt, rebuild_streams
from shared.delivery.outbox.status import (
    Backlog,
    FailingMessage,
    Lease,
    OutboxStatus,
    read_outbox_status,
)
from shared.delivery.outbox.tables import (
    create_delivery_tables,
    create_outbox_leases,
    drop_delivery_tables,
    drop_outbox_leases,
)
from shared.delivery.relay.janitor import Janitor
from shared.delivery.relay.relay import Relay, RelayStatus
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
    "FailingMessage",
    "IdempotencyKeyInUseError",
    "IdempotencyKeyReusedError",
    "IdempotencyKeys",
    "Inbox",
    "Janitor",
    "KeyedRequest",
    "Lease",
    "Outbox",
    "OutboxStatus",
    "Rebuilt",
    "Relay",
    "RelayStatus",
    "UndeclaredContractError",
    "UnitOfWork",
    "UnitOfWorkFactory",
    "check_inbox_retention",
    "create_delivery_tables",
    "create_idempotency_table",
    "create_outbox_leases",
    "drop_delivery_tables",
    "drop_idempotency_table",
    "drop_outbox_leases",
    "read_outbox_status",
    "rebuild_streams",
    "run_unit_of_work",
]
