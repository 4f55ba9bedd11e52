"""PostgreSQL: connections, models, repositories, migrations, and the gate for its errors."""

from typing import TYPE_CHECKING

from shared._lazy import lazy_names
from shared.database.base import (
    Base,
    MerchantMixin,
    SoftDeleteMixin,
    TimestampedMixin,
    VersionedMixin,
    create_updated_at_trigger,
)
from shared.database.engine.database import Database, Isolation
from shared.database.engine.replicas import ReplicaStatus
from shared.database.engine.session import bind_session, current_session, detached
from shared.database.engine.transactions import FailedTransactionError
from shared.database.engine.translation import translate_errors
from shared.database.migrations.migrate import migrate
from shared.database.models.history import Change, HistoryMixin, create_history, drop_history
from shared.database.models.json_model import JsonModel
from shared.database.models.keys import UUIDv7Mixin, uuid7_key
from shared.database.models.money import Money, money_column
from shared.database.repository.bulk import excluded
from shared.database.repository.filters import Condition, Where, where
from shared.database.repository.locks import RowLock
from shared.database.repository.pages import KeysetPage, NumberedPage
from shared.database.repository.repository import Repository
from shared.database.tenancy.row_security import (
    RowSecurity,
    expose_merchants,
    isolate_merchants,
    without_isolation,
)
from shared.database.tenancy.scopes import (
    TenantMismatchError,
    TenantRequiredError,
    system_scope,
    tenant_scope,
)
from shared.legacy.table import names_of_first_design

if TYPE_CHECKING:
    from shared.database.migrations.errors import (
        MigrationError,
    )
    from shared.database.migrations.migrations import (
        Migrations,
    )
    from shared.legacy.database.config import (
        DatabaseConfig,
        create_database_config,
    )
    from shared.legacy.database.dependencies import (
        DBSessionDep,
        get_database_health,
        get_database_manager,
        get_db_session,
        set_database_manager,
    )
    from shared.legacy.database.migrations import (
        MigrationManager,
        create_alembic_env_template,
    )
    from shared.legacy.database.session import (
        DatabaseSessionManager,
    )

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
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        **names_of_first_design(__name__),
        "MigrationError": "shared.database.migrations.errors",
        "Migrations": "shared.database.migrations.migrations",
    },
)
