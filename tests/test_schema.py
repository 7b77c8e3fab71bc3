"""The schema's versions, on both engines."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from mailbound.database import schema
from mailbound.database.engine import Database
from mailbound.database.tables import metadata
from mailbound.errors import DatabaseError


def test_the_migrations_make_what_the_tables_say(database_url: str) -> None:
    database = Database(database_url)
    assert schema.upgrade(database) == (None, "0001")
    assert schema.upgrade(database) == ("0001", "0001"), "a second time changes nothing"
    with database.look() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    database.close()


def test_a_migration_that_fails_leaves_nothing_of_itself(database_url: str) -> None:
    database = Database(database_url)
    with database.begin() as connection:
        connection.execute(sa.text("CREATE TABLE tally (nobody_expected INTEGER)"))  # in the way
    with pytest.raises(DatabaseError, match="tally"):
        schema.upgrade(database)
    with database.begin() as connection:
        assert sa.inspect(connection).get_table_names() == ["tally"]
        connection.execute(sa.text("DROP TABLE tally"))
    assert schema.upgrade(database) == (None, "0001")
    database.close()


def test_hosts_that_start_at_once_migrate_once(postgres_url: str) -> None:
    databases = [Database(postgres_url) for _ in range(4)]
    with ThreadPoolExecutor(len(databases)) as hosts:
        assert {head for _, head in hosts.map(schema.upgrade, databases)} == {"0001"}
    for database in databases:
        database.close()


def test_every_migration_is_called_by_its_revision_and_they_are_in_order() -> None:
    config = Config()
    config.set_main_option("script_location", str(schema._MIGRATIONS))
    scripts = [*ScriptDirectory.from_config(config).walk_revisions()]
    names = [Path(script.path).name.partition("_")[0] for script in scripts]
    assert [script.revision for script in scripts] == names == sorted(names, reverse=True)


def test_a_newer_schema_is_left_alone(database_url: str) -> None:
    database = Database(database_url)
    schema.upgrade(database)
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match=r"its schema \(9999\) is newer than this mailbound"):
        schema.upgrade(database)
    database.close()


def test_the_hot_queries_use_their_indexes(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    schema.upgrade(database)
    queries = {
        "SELECT id FROM delivery WHERE run_id = 1 AND state = 'queued' AND next_attempt_at <= '2026'"
        " ORDER BY next_attempt_at, id": "ix_delivery_queued",
        "SELECT id FROM delivery WHERE run_id = 1 AND state = 'queued' AND next_attempt_at <= '2026'"
        " AND reason = 'paced' ORDER BY next_attempt_at, id LIMIT 9": "ix_delivery_paced",
        "SELECT id FROM delivery WHERE node_id = 1 AND state IN ('claimed', 'sending')": "ix_delivery_node",
        "SELECT id FROM inbound_mail WHERE state = 'new' ORDER BY id": "ix_inbound_mail_new",
        "SELECT id FROM bounce WHERE run_id = 1 AND category = 'blocked'": "ix_bounce_run",
    }
    with database.look() as connection:
        for query, index in queries.items():
            plan = " ".join(row.detail for row in connection.execute(sa.text(f"EXPLAIN QUERY PLAN {query}")))
            assert index in plan, plan
            assert "SCAN delivery" not in plan
    database.close()
