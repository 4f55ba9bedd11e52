"""Where database and messages meet: both change together, each message takes effect once."""

from shared.delivery.inbox import Inbox
from shared.delivery.janitor import Janitor
from shared.delivery.outbox import Outbox, UndeclaredContractError
from shared.delivery.relay import Backlog, Relay, RelayStatus
from shared.delivery.tables import create_delivery_tables, drop_delivery_tables
from shared.delivery.unit_of_work import UnitOfWork

__all__ = [
    "Backlog",
    "Inbox",
    "Janitor",
    "Outbox",
    "Relay",
    "RelayStatus",
    "UndeclaredContractError",
    "UnitOfWork",
    "create_delivery_tables",
    "drop_delivery_tables",
]
