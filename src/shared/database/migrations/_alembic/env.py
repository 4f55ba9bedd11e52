"""Alembic's environment of every service: the connection is handed in by `shared.database`."""

from alembic import context

attributes = context.config.attributes
offline = context.is_offline_mode()

context.configure(
    connection=attributes["connection"],
    dialect_name="postgresql" if offline else None,
    dialect_opts={"paramstyle": "named"} if offline else None,  # others write % as %%
    literal_binds=offline,
    target_metadata=attributes.get("target_metadata"),
    version_table_schema=attributes["schema"],
    include_object=attributes.get("include_object"),
    render_item=attributes.get("render_item") or (lambda *_: False),
    compare_server_default=False,
    # A migration that fails leaves those before it done; and it may use autocommit_block().
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
