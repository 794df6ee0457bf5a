"""What neutron-db-manage --subproject toast-vpc runs: migrations of our tables alone, counted in a table of our own."""

from alembic import context
from neutron.db.migration.connection import DBConnection
from neutron_lib.db import model_base

from toast_vpc.db import models  # noqa: F401, the tables that --autogenerate compares

VERSION_TABLE = "alembic_version_toast_vpc"

config = context.config


def _is_ours(thing, name, kind, reflected, compare_to):
    """Whether --autogenerate looks at a table."""
    return kind != "table" or name.startswith("toast_vpc")


def run() -> None:
    database = config.neutron_config.database
    options = {"version_table": VERSION_TABLE, "include_object": _is_ours}
    if context.is_offline_mode():
        where = {"url": database.connection} if database.connection else {"dialect_name": database.engine}
        context.configure(**where, **options)
        with context.begin_transaction():
            context.run_migrations()
        return
    with DBConnection(database.connection, config.attributes.get("connection")) as connection:
        context.configure(connection=connection, target_metadata=model_base.BASEV2.metadata, **options)
        with context.begin_transaction():
            context.run_migrations()


run()
