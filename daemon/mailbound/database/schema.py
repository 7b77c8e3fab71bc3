"""The schema's version: Alembic migrations, run at start and by `database upgrade`."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from mailbound.database.engine import Database
from mailbound.errors import DatabaseError

_MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(database: Database) -> tuple[str | None, str]:
    """Bring the schema to this version's, in one transaction; return the revision before and after.

    Raises DatabaseError if the schema is newer than this program: an old program must not write to it.
    """
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    head = str(scripts.get_current_head())
    with database.begin() as connection:
        before = MigrationContext.configure(connection).get_current_revision()
        if before is not None and before not in {script.revision for script in scripts.walk_revisions()}:
            raise DatabaseError(
                f"database: its schema ({before}) is newer than this mailbound; install a newer one"
            )
        if before != head:
            _lock(connection)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    return before, head


def _lock(connection: sa.Connection) -> None:
    """Let one host migrate while the others wait; SQLite's writer is alone anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(6245)"))
