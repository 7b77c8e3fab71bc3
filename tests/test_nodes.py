"""Nodes on one database: who is alive, whose work it is, and what becomes of what the lost ones held."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from mailbound.database import claims, deliveries, inbound_mail, leases, nodes, recovery, schema, tables
from mailbound.database.engine import Database
from mailbound.database.inbound_mail import Arrival
from mailbound.database.leases import Lease
from mailbound.lifecycle import DeliveryEvent, DeliveryState
from mailbound.node import Node
from world import NOW, World, mark, world

_LONG = timedelta(hours=1)


@contextlib.contextmanager
def _opened(url: str) -> Iterator[Database]:
    database = Database(url, checkpoints=True)
    schema.upgrade(database)
    try:
        yield database
    finally:
        database.close()


def _age(connection: sa.Connection, node_id: int, **columns: datetime | None) -> None:
    """Let time pass for a node, by the database's clock."""
    for name in columns or {"seen_at": None}:
        column = tables.node.c[name]
        before = connection.execute(sa.select(column).where(tables.node.c.id == node_id)).scalar_one()
        aged = tables.node.update().where(tables.node.c.id == node_id)
        connection.execute(aged.values({name: before - _LONG}))


def _join(connection: sa.Connection) -> int:
    return nodes.join(connection, "host", now=NOW)


# --- who is alive -----------------------------------------------------------------------------------------


def test_a_heartbeat_tells_how_many_are_alive(database_url: str) -> None:
    with _opened(database_url) as database, database.begin() as connection:
        first, second, third = (_join(connection) for _ in range(3))
        assert nodes.beat(connection, first) == 3
        nodes.leave(connection, second)
        assert nodes.beat(connection, first) == 2
        _age(connection, third)
        assert nodes.beat(connection, first) == 1, "who is silent has no share, even before it is given up"
        assert [row.id for row in nodes.live(connection)] == [first]


def test_who_is_silent_for_a_lease_is_given_up_once_and_hears_of_it(database_url: str) -> None:
    with _opened(database_url) as database, database.begin() as connection:
        first, silent = _join(connection), _join(connection)
        assert nodes.give_up(connection, but=first) == []
        _age(connection, silent)
        assert [row.id for row in nodes.give_up(connection, but=first)] == [silent]
        assert nodes.give_up(connection, but=first) == []
        assert nodes.beat(connection, silent) is None, "it comes back too late"
        assert nodes.lost(connection) == [silent]
        assert nodes.lost(connection, answered=True) == [], "its last final dots may not be answered yet"


def test_a_server_that_does_not_tell_its_timeline_is_taken_to_be_the_same(postgres_url: str) -> None:
    with _opened(postgres_url) as database, database.begin() as connection:
        assert nodes.timeline(connection) == "00000001"
        connection.exec_driver_sql("CREATE ROLE nobody_in_particular")
        connection.exec_driver_sql("REVOKE EXECUTE ON FUNCTION pg_current_wal_lsn FROM PUBLIC")
        connection.exec_driver_sql("SET ROLE nobody_in_particular")
        assert nodes.timeline(connection) == ""
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1, "and the transaction goes on"
        connection.rollback()


def test_the_clock_of_a_host_is_of_no_account(database_url: str) -> None:
    with _opened(database_url) as database, database.begin() as connection:
        first = nodes.join(connection, "fast", now=NOW + timedelta(days=1))
        late = nodes.join(connection, "slow", now=NOW - timedelta(days=1))
        assert nodes.beat(connection, first) == 2
        assert nodes.give_up(connection, but=first) == []
        assert nodes.beat(connection, late) == 2


# --- whose work it is -------------------------------------------------------------------------------------


def test_a_lease_is_held_by_one_until_it_leaves_or_is_given_up(database_url: str) -> None:
    with _opened(database_url) as database, database.begin() as connection:
        first, second, third = (_join(connection) for _ in range(3))
        assert leases.holder(connection, "reading") is None
        assert leases.take(connection, "reading", node_id=first)
        assert leases.take(connection, "reading", node_id=first), "it is its own already"
        assert not leases.take(connection, "reading", node_id=second)
        assert leases.holder(connection, "reading") == first
        assert leases.take(connection, "scheduling", node_id=second), "another work is another lease"
        nodes.leave(connection, first)
        assert leases.holder(connection, "reading") is None
        assert leases.take(connection, "reading", node_id=second)
        _age(connection, second)
        assert leases.holder(connection, "reading") == second, "silence alone frees nothing"
        nodes.give_up(connection, but=third)
        assert not leases.take(connection, "reading", node_id=second), "whoever was given up takes nothing"
        assert leases.take(connection, "reading", node_id=third)
        nodes.forget(connection, [third])
        assert leases.holder(connection, "reading") is None


def test_of_many_who_want_a_lease_at_once_one_gets_it(postgres_url: str) -> None:
    with _opened(postgres_url) as database:
        with database.begin() as connection:
            ids = [_join(connection) for _ in range(8)]
        start = threading.Barrier(len(ids))
        taken: list[int] = []

        def want(node_id: int) -> None:
            with database.begin() as connection:
                start.wait()
                if leases.take(connection, "reading", node_id=node_id):
                    taken.append(node_id)

        threads = [threading.Thread(target=want, args=(node_id,)) for node_id in ids]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(taken) == 1
        with database.look() as connection:
            assert leases.holder(connection, "reading") == taken[0]


def test_a_lease_that_was_lost_is_found_out_at_the_next_step(postgres_url: str) -> None:
    with _opened(postgres_url) as database:
        with database.begin() as connection:
            first, second = _join(connection), _join(connection)
        ours, theirs = (Lease(database, "scheduling", node_id=node_id) for node_id in (first, second))
        assert asyncio.run(ours.held())
        assert not asyncio.run(theirs.held())
        with database.begin() as connection:
            _age(connection, first)
            nodes.give_up(connection, but=second)
        assert not asyncio.run(ours.held())
        assert asyncio.run(theirs.held())


# --- what the lost ones held ------------------------------------------------------------------------------


def _claims(here: World, node_id: int, *, count: int = 2, in_doubt: str = "resend") -> list[Any]:
    for number in range(count):
        here.person(f"{node_id}-{number}")
    run_id = here.sending(here.activity(in_doubt=in_doubt))
    store_id = here.stores["main"]
    return claims.claim(
        here.connection, run_id=run_id, store_id=store_id, node_id=node_id, limit=count, now=NOW
    )


def _states(here: World) -> list[tuple[str, int | None]]:
    query = sa.select(tables.delivery.c.state, tables.delivery.c.node_id).order_by(tables.delivery.c.id)
    return [(row.state, row.node_id) for row in here.connection.execute(query)]


@pytest.mark.parametrize(
    ("in_doubt", "after"), [("resend", ("queued", None)), ("hold", ("unknown", None))], ids=str
)
def test_claims_are_free_at_once_and_marks_when_their_dots_must_be_answered(
    database_url: str, in_doubt: str, after: tuple[str, int | None]
) -> None:
    with world(database_url) as here:
        connection = here.connection
        lost, other = _join(connection), _join(connection)
        first, _ = _claims(here, lost, in_doubt=in_doubt)
        assert mark(connection, [first.id], node_id=lost, now=NOW) == {first.id}
        _age(connection, lost)
        nodes.give_up(connection, but=other)
        assert recovery.release(connection, nodes.lost(connection), now=NOW) == 1
        assert _states(here) == [("sending", lost), ("queued", None)]
        assert nodes.lost(connection, answered=True) == []
        _age(connection, lost, lost_at=None)
        counts = recovery.take_over(connection, nodes.lost(connection, answered=True), now=NOW)
        assert counts == {DeliveryState.QUEUED: 0, DeliveryState.UNKNOWN: 1}
        assert _states(here) == [after, ("queued", None)]
        assert nodes.lost(connection) == []


def test_a_node_that_was_given_up_marks_nothing_it_had_claimed(database_url: str) -> None:
    with world(database_url) as here:
        connection = here.connection
        lost, other = _join(connection), _join(connection)
        claimed = _claims(here, lost)
        _age(connection, lost)
        nodes.give_up(connection, but=other)
        recovery.release(connection, nodes.lost(connection), now=NOW)
        ids = [each.id for each in claimed]
        assert mark(connection, ids, node_id=lost, now=NOW) == set()


def test_a_node_that_was_given_up_claims_nothing(database_url: str) -> None:
    with world(database_url) as here:
        lost, other = _join(here.connection), _join(here.connection)
        _age(here.connection, lost)
        nodes.give_up(here.connection, but=other)
        assert _claims(here, lost) == []


def test_a_node_that_was_given_up_still_writes_the_outcome_of_its_last_dot(database_url: str) -> None:
    with world(database_url) as here:
        connection = here.connection
        lost, other = _join(connection), _join(connection)
        (first,) = _claims(here, lost, count=1)
        mark(connection, [first.id], node_id=lost, now=NOW)
        _age(connection, lost)
        nodes.give_up(connection, but=other)
        recovery.release(connection, nodes.lost(connection), now=NOW)
        accepted = deliveries.Settlement(first.id, DeliveryEvent.ACCEPT)
        deliveries.settle(connection, [accepted], node_id=lost, now=NOW)
        assert _states(here) == [("accepted", None)]


def test_mail_that_another_node_took_since_is_left_to_it(database_url: str) -> None:
    with world(database_url) as here:
        arrival = Arrival("1", b"raw", 3, truncated=False)
        inbound_mail.keep(here.connection, here.stores["main"], [arrival], now=NOW)
        (slow,) = inbound_mail.take(here.connection, limit=1)
        assert inbound_mail.ours(here.connection, [slow]) == [slow]
        (quick,) = inbound_mail.take(here.connection, limit=1)
        assert inbound_mail.ours(here.connection, [slow, quick]) == [quick]


# --- a node's life ----------------------------------------------------------------------------------------


def test_alone_on_sqlite_what_others_held_is_taken_over_at_the_start(sqlite_url: str) -> None:
    with world(sqlite_url) as here:
        _claims(here, _join(here.connection))
    with _opened(sqlite_url) as database:
        node = Node(database, clock=lambda: NOW)
        asyncio.run(node.join())
        with database.look() as connection:
            assert [row.id for row in connection.execute(sa.select(tables.node.c.id))] == [node.id]
            states = connection.execute(sa.select(tables.delivery.c.state)).scalars().all()
            assert states == ["queued", "queued"]


def test_a_node_judges_others_only_after_it_was_heard_of_itself(postgres_url: str) -> None:
    with _opened(postgres_url) as database:
        with database.begin() as connection:
            silent = _join(connection)
            _age(connection, silent)
        node = Node(database, clock=lambda: NOW)
        lost = []
        asyncio.run(node.join())
        for _ in range(3):
            with database.look() as connection:
                lost.append(nodes.lost(connection))
            asyncio.run(node.beat())
        assert lost == [[], [], [silent]]


def test_a_node_that_was_given_up_joins_again_as_another(postgres_url: str) -> None:
    counts: list[int] = []
    with _opened(postgres_url) as database:
        node = Node(database, clock=lambda: NOW, changed=counts.append)
        asyncio.run(node.join())
        before = node.id
        with database.begin() as connection:
            other = _join(connection)
            _age(connection, before)
            nodes.give_up(connection, but=other)
        asyncio.run(node.beat())
        assert node.lost.is_set()
        asyncio.run(node.join())
        assert not node.lost.is_set()
        assert node.id not in {before, other}
        assert counts == [2]


def test_what_holds_a_node_back_is_told_with_its_heartbeat(database_url: str) -> None:
    with _opened(database_url) as database:
        node = Node(database, clock=lambda: NOW, holding=lambda: {"main": "the rate of 5 a second"})
        asyncio.run(node.join())
        with database.look() as connection:
            assert [row.holding for row in nodes.live(connection)] == [{"main": "the rate of 5 a second"}]


def test_a_daemon_that_stops_in_the_middle_of_a_transaction_is_cut_off(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _opened(postgres_url):
        pass  # to make the tables may take longer than it shall be patient
    monkeypatch.setattr("mailbound.database.engine._IDLE_SECONDS", 1)
    with contextlib.closing(Database(postgres_url, checkpoints=True)) as database:
        tries = []

        def dawdle(connection: sa.Connection) -> int:
            tries.append(1)
            one = connection.execute(sa.text("SELECT 1")).scalar_one()
            while len(tries) == 1 and _idle_in_transaction(postgres_url):
                pass  # as if SIGSTOP came here, until the server has had enough
            return int(connection.execute(sa.text("SELECT 1")).scalar_one()) + one

        assert asyncio.run(database.run(dawdle)) == 2
        assert len(tries) == 2


def _idle_in_transaction(url: str) -> bool:
    database = Database(url)
    try:
        with database.look() as connection:
            idle = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"
            return bool(connection.execute(sa.text(idle)).scalar_one())
    finally:
        database.close()
