"""Alembic's environment of every service: the connection is handed in by `shared.database`."""

from alembic import context

attributes = context.config.attributes
place = (
    {"dialect_name": "postgresql", "dialect_opts": {"paramstyle": "named"}}
    if context.is_offline_mode()
    else {}
)

context.configure(
    connection=attributes["connection"],
    target_metadata=attributes.get("target_metadata"),
    version_table_schema=attributes["schema"],
    include_object=attributes.get("include_object"),
    compare_server_default=False,
    # A migration that fails leaves those before it done; and it may use autocommit_block().
    transaction_per_migration=True,
    literal_binds=context.is_offline_mode(),
    **place,
)
with context.begin_transaction():
    context.run_migrations()
