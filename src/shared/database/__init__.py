"""PostgreSQL: connections, models, repositories, migrations, and the gate for its errors."""

from importlib import import_module
from typing import TYPE_CHECKING

from shared.database.base import (
    Base,
    MerchantMixin,
    SoftDeleteMixin,
    TimestampedMixin,
    VersionedMixin,
    create_updated_at_trigger,
)
from shared.database.bulk import excluded
from shared.database.config import DatabaseConfig, create_database_config
from shared.database.current import bind_session, current_session, detached
from shared.database.database import Database, Isolation
from shared.database.filters import Condition, Where, where
from shared.database.history import Change, HistoryMixin, create_history, drop_history
from shared.database.keys import UUIDv7Mixin, uuid7_key
from shared.database.locks import RowLock
from shared.database.migrated import migrate
from shared.database.money import Money, money_column
from shared.database.open_transactions import FailedTransactionError
from shared.database.pages import KeysetPage, NumberedPage
from shared.database.replicas import ReplicaStatus
from shared.database.repository import Repository
from shared.database.row_security import RowSecurity
from shared.database.session import DatabaseSessionManager
from shared.database.tenancy import (
    TenantMismatchError,
    TenantRequiredError,
    expose_merchants,
    isolate_merchants,
    system_scope,
    tenant_scope,
    without_isolation,
)
from shared.database.translation import translate_errors
from shared.database.types import JsonModel

if TYPE_CHECKING:
    from shared.database.dependencies import (
        DBSessionDep,
        get_database_health,
        get_database_manager,
        get_db_session,
        set_database_manager,
    )
    from shared.database.first_design import MigrationManager, create_alembic_env_template
    from shared.database.migrations import MigrationError, Migrations

__all__ = [
    "Base",
    "Change",
    "Condition",
    "DBSessionDep",
    "Database",
    "DatabaseConfig",
    "DatabaseSessionManager",
    "FailedTransactionError",
    "HistoryMixin",
    "Isolation",
    "JsonModel",
    "KeysetPage",
    "MerchantMixin",
    "MigrationError",
    "MigrationManager",
    "Migrations",
    "Money",
    "NumberedPage",
    "ReplicaStatus",
    "Repository",
    "RowLock",
    "RowSecurity",
    "SoftDeleteMixin",
    "TenantMismatchError",
    "TenantRequiredError",
    "TimestampedMixin",
    "UUIDv7Mixin",
    "VersionedMixin",
    "Where",
    "bind_session",
    "create_alembic_env_template",
    "create_database_config",
    "create_history",
    "create_updated_at_trigger",
    "current_session",
    "detached",
    "drop_history",
    "excluded",
    "expose_merchants",
    "get_database_health",
    "get_database_manager",
    "get_db_session",
    "isolate_merchants",
    "migrate",
    "money_column",
    "set_database_manager",
    "system_scope",
    "tenant_scope",
    "translate_errors",
    "uuid7_key",
    "where",
    "without_isolation",
]

# What brings FastAPI, which a relay alone does not need, or Alembic, which most starts do not.
_LAZY = {
    "DBSessionDep": "shared.database.dependencies",
    "MigrationError": "shared.database.revision_files",
    "MigrationManager": "shared.database.first_design",
    "Migrations": "shared.database.migrations",
    "create_alembic_env_template": "shared.database.first_design",
    "get_database_health": "shared.database.dependencies",
    "get_database_manager": "shared.database.dependencies",
    "get_db_session": "shared.database.dependencies",
    "set_database_manager": "shared.database.dependencies",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
