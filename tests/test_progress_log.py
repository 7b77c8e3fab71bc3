"""What the log says of runs that send."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import sqlalchemy as sa
from structlog.testing import capture_logs

from mailbound.database import nodes, schema, tables
from mailbound.database.engine import Database
from mailbound.database.leases import Lease
from mailbound.progress import Progress
from world import NODE, NOW, World


def told(progress):
    with capture_logs() as records:
        asyncio.run(progress.tell())
    return [record for record in records if record["event"] == "run.progress"]


def test_each_run_that_sends_is_told_with_its_rate_and_its_limit(database_url: str) -> None:
    database = Database(database_url)
    schema.upgrade(database)
    now = NOW
    progress = Progress(database, lease=Lease(database, "scheduling", node_id=NODE), clock=lambda: now)
    with database.begin() as connection:
        here = World(connection)
        for number in range(30):
            here.person(f"p{number}")
        run_id = here.sending()
        here.send(run_id, limit=6)
        connection.execute(sa.update(tables.node).values(name="mx1"))
        nodes.beat(connection, NODE, holding={"main": "the rate of 2 a second"})
    (first,) = told(progress)
    assert (first["run"], first["activity"], first["open"], first["settled"]) == (run_id, "spring", 24, 6)
    assert (first["rate"], first["limit"]) == (None, "the rate of 2 a second")
    now = NOW + timedelta(minutes=1)
    with database.begin() as connection:
        World(connection).send(run_id, limit=24)
    (second,) = told(progress)
    assert (second["open"], second["settled"], second["rate"]) == (0, 30, 0.4)
    database.close()


def test_nothing_is_told_of_runs_that_do_not_send(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    schema.upgrade(database)
    progress = Progress(database, lease=Lease(database, "scheduling", node_id=NODE), clock=lambda: NOW)
    assert told(progress) == []
    database.close()
