"""Six hours without a relay: what it costs the relay, the database and those who wait. The clock is scaled."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mailbound import classify, pacing, relay
from mailbound.config import Inbox, Policy, Sending, Store, Web
from mailbound.config import Outbound as Account
from mailbound.database import activities, runs, schema, tables, tally, token_keys
from mailbound.database.engine import Database
from mailbound.lifecycle import DeliveryState
from mailbound.outbound import Outbound
from mailbound.outbound.composer import Composer
from mailbound.outbound.loop import Parts
from mailbound.scheduler import start
from mailbound.simulator import Simulator
from mailbound.simulator.envelope import Envelope
from mailbound.template import Template
from world import NODE, NOW, World

_PEOPLE = 20_000
_CONNECTIONS = 8
_FIRST = 300
_PATIENCE_SECONDS = 60.0
_OUTAGE = timedelta(hours=6)
_STORE = Store(
    name="Example News",
    list_id="news.sender.test",
    outbound=Account(address="hello@sender.test", host="127.0.0.1", tls="insecure"),
    inbound=Inbox(address="bounces@sender.test", host="127.0.0.1", username="b", tls="insecure"),
)
_TEMPLATE = Template("spring", {"subject.txt": b"Spring", "text.txt": b"Hello {{ name }}"})

_NUMBERS = (
    f"WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {_PEOPLE}) SELECT"
)
_CROWD = {
    "domain (id, name)": "n, 'remote.test' FROM number WHERE n = 1",
    "address (id, key, domain_id)": "n, 'person-' || n || '@remote.test', 1 FROM number",
    "recipient (id, external_id, address_id, address, name, attributes, created_at, changed_at)": (
        "n, 'c' || n, n, 'person-' || n || '@remote.test', 'Ada', '{}', 0, 0 FROM number"
    ),
    "opt_in (recipient_id, store_id, receive, source, changed_at)": "n, :store, 1, 'user', 0 FROM number",
}


class Clock:
    """The time of the day and of the machine, which stands still but for `sleep`."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.passed = 0.0

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.passed)

    def seconds(self) -> float:
        return self.passed

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.passed += seconds
        await asyncio.sleep(0)


class Door:
    """The way to the relay. While it is shut it hangs up on whoever comes, and counts them."""

    def __init__(self, port: int) -> None:
        self.shut = True
        self.turned_away = 0
        self.within: set[asyncio.Task[Any]] = set()
        self._port = port

    async def enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            if self.shut:
                self.turned_away += 1
                return
            task = asyncio.current_task()
            assert task is not None
            self.within.add(task)
            task.add_done_callback(self.within.discard)
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._port)
            with contextlib.closing(ours):
                await asyncio.gather(_pass_on(reader, ours), _pass_on(theirs, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while octets := await reader.read(65_536):
            writer.write(octets)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def _relay(took: list[str]) -> AsyncIterator[tuple[Door, int]]:
    """Give the door of a relay and the port that it is at; it notes whose message it took."""

    def note(envelope: Envelope) -> None:
        took.extend(recipient.address for recipient in envelope.recipients)

    async with Simulator(on_accept=note, keep=0) as simulator:
        door = Door(simulator.smtp_port)
        server = await asyncio.start_server(door.enter, "127.0.0.1", 0)
        try:
            yield door, server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in door.within:
                task.cancel()
            await asyncio.gather(*door.within, return_exceptions=True)


def _crowd(database: Database) -> dict[str, int]:
    """Put people into a new database, all of whom two runs are to mail now; return the runs by activity."""
    schema.upgrade(database)
    with database.begin() as connection:
        here = World(connection)
        for table, values in _CROWD.items():
            statement = sa.text(f"INSERT INTO {table} {_NUMBERS} {values}")
            connection.execute(statement, {"store": here.stores["main"]} if ":store" in values else {})
        token_keys.signing(connection, now=NOW)
        begun = {}
        for name, hours in {"brief": 4, "long": 96}.items():
            activity = here.activity(name, expires_after=timedelta(hours=hours))
            runs.schedule(connection, activity.id, NOW)
            run = runs.of_activity(connection, activity.id)[0]
            start(connection, run, activities.find(connection, activity.id), _TEMPLATE.freeze(), NOW)
            here.freeze(run.id)
            begun[name] = run.id
        return begun


def _outbound(database: Database, source: relay.Relay, clock: Clock) -> Outbound:
    with database.look() as connection:
        store_id = connection.execute(sa.select(tables.activity.c.store_id).limit(1)).scalar_one()
    return Outbound(
        Parts(
            database=database,
            relay=source,
            composer=Composer(database, _STORE, store_id=store_id, web=Web(), clock=clock.now),
            rules=classify.Rules.load(),
            sending=Sending(),
            limits=Policy(),
            store="main",
            store_id=store_id,
            node_id=NODE,
            connections=_CONNECTIONS,
            pace=pacing.Pace(_CONNECTIONS),
            clock=clock.now,
        )
    )


def _states(connection: sa.Connection, run_id: int) -> dict[tuple[str, int], int]:
    """Return how many deliveries of a run are in which state after how many attempts."""
    delivery = tables.delivery
    query = (
        sa.select(delivery.c.state, delivery.c.attempt, sa.func.count())
        .where(delivery.c.run_id == run_id)
        .group_by(delivery.c.state, delivery.c.attempt)
    )
    return {(state, attempt): count for state, attempt, count in connection.execute(query)}


async def _until(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + _PATIENCE_SECONDS
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < until, f"waited for {what}"


def _untouched(database: Database, run_ids: dict[str, int]) -> bool:
    """Return whether all are in the queue, and nobody holds them."""
    with database.look() as connection:
        queued = {(str(DeliveryState.QUEUED), 0): _PEOPLE}
        return all(_states(connection, run_id) == queued for run_id in run_ids.values())


async def _live_through(database: Database, run_ids: dict[str, int], took: list[str]) -> None:
    """Shut the relay's door for six hours, with all due; then let it take some, and see how."""
    clock = Clock()
    async with _relay(took) as (door, port):

        async def sleep(seconds: float) -> None:
            await clock.sleep(seconds)
            if door.shut and clock.passed >= _OUTAGE.total_seconds():
                await _until(lambda: _untouched(database, run_ids), "what was claimed to be given back")
                door.shut = False

        account = relay.Account(host="127.0.0.1", port=port, tls="insecure", ehlo_name="me.test")
        source = relay.Relay(account, connections=_CONNECTIONS, clock=clock.seconds, sleep=sleep)
        stopping = asyncio.Event()
        sending = asyncio.create_task(_outbound(database, source, clock).run(stopping))
        try:
            await _until(lambda: len(took) >= _FIRST or sending.done(), "the first letters")
            _check_steps(clock.slept, door.turned_away)
            assert (source.allowed, len(door.within)) == (1, 1), "it gets its load back step by step"
            clock.passed += 60.0
            await _until(lambda: len(door.within) == _CONNECTIONS, "all connections to be at work again")
        finally:
            stopping.set()
            await sending


def _check_steps(slept: list[float], turned_away: int) -> None:
    """See that the relay was tried in steps that double, and by one at a time."""
    for number, seconds in enumerate(slept):
        step = min(2.0**number, 300.0)
        assert step <= seconds <= 1.25 * step
    assert turned_away <= len(slept) + _CONNECTIONS - 1  # before the first step nobody knew
    assert len(slept) < 90, "twelve an hour, and some more at first"


def test_six_hours_without_a_relay_cost_it_a_connection_a_step_and_nobody_an_attempt(tmp_path: Path) -> None:
    took: list[str] = []
    database = Database(f"sqlite:///{tmp_path}/mailbound.db", checkpoints=True)
    try:
        run_ids = _crowd(database)
        asyncio.run(_live_through(database, run_ids, took))
        with database.look() as connection:
            brief, long = (_states(connection, run_ids[name]) for name in ("brief", "long"))
            assert tally.differences(connection) == []
    finally:
        database.close()
    assert {state for state, _ in brief} <= {"queued", "expired"}, "what expired meanwhile is not sent"
    assert brief["expired", 0] > 0
    assert long == {("accepted", 1): len(took), ("queued", 0): _PEOPLE - len(took)}
    # Through the one connection of the beginning they come in the order in which they were due.
    assert took[:_FIRST] == [f"person-{number}@remote.test" for number in range(1, _FIRST + 1)]
