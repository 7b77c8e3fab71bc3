"""The schema's version: Alembic migrations, run at start and by `database upgrade`."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from mailbound.database.engine import Database
from mailbound.errors import DatabaseError

_MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(database: Database) -> tuple[str | None, str]:
    """Bring the schema to this version's, in one transaction; return the revision before and after.

    Raises DatabaseError if the schema is newer than this program: an old program must not write to it.
    """
    revisions = sorted(path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py"))
    with database.begin() as connection:
        before = _current(connection)
        if before is not None and before not in revisions:
            raise DatabaseError(
                f"database: its schema ({before}) is newer than this mailbound; install a newer one"
            )
        if before != revisions[-1]:
            _lock(connection)
            _migrate(connection)
    return before, revisions[-1]


def _current(connection: sa.Connection) -> str | None:
    """Return the revision that the database has, None if it is empty."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _migrate(connection: sa.Connection) -> None:
    # Only now: Alembic takes 8 MB, and a daemon that was not upgraded has no use for it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _lock(connection: sa.Connection) -> None:
    """Let one host migrate while the others wait; SQLite's writer is alone anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(6245)"))
