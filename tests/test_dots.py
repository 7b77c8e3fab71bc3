"""What final dots ask of the database: the last deliveries accepted, the next ones marked, all at once."""

from __future__ import annotations

import asyncio

import sqlalchemy as sa

from mailbound.database import deliveries, dots, outcomes, schema, tables, tally
from mailbound.database.claims import Claimed
from mailbound.database.deliveries import Settlement, Told
from mailbound.database.dots import Accepted, Written
from mailbound.database.engine import Database
from mailbound.database.outcomes import Ended
from mailbound.lifecycle import DeliveryEvent, DeliveryState
from world import DAY, NODE, NOW, Limits, World, mark, world

LATER = NOW + DAY


def _claim(here: World, *names: str) -> list[Claimed]:
    for number, name in enumerate(names):
        here.person(name, address=f"{name}@domain-{number % 2}.test")
    run_id = here.sending()
    return sorted(here.claim(run_id), key=lambda each: names.index(each.external_id))


def _accepted(*claimed: Claimed, reply: str | None = "250 2.0.0 Ok") -> list[Accepted]:
    return [Accepted(each.id, each.place, reply) for each in claimed]


def _write(here: World, accepted: list[Accepted], marks: list[Claimed]) -> tuple[set[int], set[int]]:
    ids = [each.id for each in marks]
    written = dots.write(here.connection, accepted, ids, node_id=NODE, store_id=here.stores["main"], now=NOW)
    return set(written.accepted), set(written.marked)


def _row(here: World, claimed: Claimed) -> sa.Row[tuple[object, ...]]:
    return here.connection.execute(sa.select(tables.delivery).where(tables.delivery.c.id == claimed.id)).one()


def test_the_last_are_accepted_and_the_next_are_marked_at_once(database_url: str) -> None:
    with world(database_url) as here:
        anna, bert, cleo, dora = _claim(here, "anna", "bert", "cleo", "dora")
        assert _write(here, [], [anna, bert]) == (set(), {anna.id, bert.id})
        assert _write(here, _accepted(anna, bert), [cleo, dora]) == ({anna.id, bert.id}, {cleo.id, dora.id})
        row = _row(here, anna)
        assert (row.state, row.attempt, row.reply) == ("accepted", 1, "250 2.0.0 Ok")
        assert (row.marked_at, row.settled_at, row.node_id, row.next_attempt_at) == (NOW, NOW, None, None)
        row = _row(here, cleo)
        assert (row.state, row.attempt, row.marked_at, row.node_id) == ("sending", 1, NOW, NODE)
        assert tally.of_run(here.connection, anna.run_id) == {"accepted": 2, "open": 2}
        assert tally.differences(here.connection) == []


def test_each_domain_is_counted_where_it_belongs(database_url: str) -> None:
    with world(database_url) as here:
        anna, bert, cleo = _claim(here, "anna", "bert", "cleo")
        _write(here, [], [anna, bert, cleo])
        _write(here, _accepted(anna, bert, cleo), [])
        counts = sa.select(tables.tally.c.domain_id, tables.tally.c.count).where(
            tables.tally.c.outcome == "accepted"
        )
        found = {row.domain_id: row.count for row in here.connection.execute(counts)}
        assert found == {anna.domain_id: 2, bert.domain_id: 1}


def test_nothing_is_asked_of_the_database_for_nothing(database_url: str) -> None:
    with world(database_url) as here:
        assert dots.write(here.connection, [], [], node_id=NODE, store_id=1, now=NOW) == Written()


def test_only_those_that_are_still_ours_are_accepted_and_marked(database_url: str) -> None:
    """On SQLite their number says first that some are missing."""
    with world(database_url) as here:
        anna, bert, cleo, dora = _claim(here, "anna", "bert", "cleo", "dora")
        _write(here, [], [anna, bert])
        bounced = Told(anna.id, DeliveryEvent.REPORT_FAILED, "no-such-user", "5.1.1")
        deliveries.report(here.connection, [bounced], now=NOW)
        here.wish(cleo.recipient_id, receive=False)
        assert _write(here, _accepted(anna, bert), [cleo, dora]) == ({bert.id}, {dora.id})
        assert _row(here, anna).state == "bounced"
        assert _row(here, cleo).state == "claimed"
        assert tally.differences(here.connection) == []


def test_what_was_marked_or_accepted_before_is_not_so_again(database_url: str) -> None:
    with world(database_url) as here:
        anna, bert = _claim(here, "anna", "bert")
        assert _write(here, [], [anna]) == (set(), {anna.id})
        assert _write(here, [], [anna]) == (set(), set())
        assert _write(here, _accepted(anna), [bert, bert]) == ({anna.id}, {bert.id})
        assert _write(here, _accepted(anna), []) == (set(), set())
        assert _row(here, anna).attempt == _row(here, bert).attempt == 1
        assert tally.differences(here.connection) == []


def test_a_long_reply_is_cut_and_none_keeps_the_one_before(database_url: str) -> None:
    with world(database_url) as here:
        anna, bert, cleo = _claim(here, "anna", "bert", "cleo")
        deferred = Settlement(anna.id, DeliveryEvent.DEFER, attempt=1, next_attempt_at=NOW, reply="451 Later")
        here.commit(Ended(anna.id, deferred))
        here.claim(anna.run_id)
        _write(here, [], [anna, bert, cleo])
        quoted = '250 "Ok" \\ é\u2028' + "x" * 600
        _write(here, [*_accepted(bert, reply=quoted), *_accepted(anna, cleo, reply=None)], [])
        assert _row(here, bert).reply == quoted[: deliveries.REPLY_LIMIT]
        assert (_row(here, anna).reply, _row(here, cleo).reply) == ("451 Later", None)


def test_a_report_that_overtakes_an_acceptance_has_the_last_word(database_url: str) -> None:
    with world(database_url) as here:
        anna, bert = _claim(here, "anna", "bert")
        done = here.commit(*_overtaken(here, anna, bert), at=LATER)
        assert done.states == {anna.id: DeliveryState.BOUNCED, bert.id: DeliveryState.ACCEPTED}
        assert (_row(here, anna).node_id, _row(here, anna).settled_at) == (None, LATER)
        assert tally.differences(here.connection) == []


def test_it_has_the_last_word_over_acceptances_that_are_written_alone(database_url: str) -> None:
    database = Database(database_url)
    schema.upgrade(database)
    with database.begin() as connection:
        here = World(connection)
        anna, bert, cleo = _claim(here, "anna", "bert", "cleo")
        ended = _overtaken(here, anna, bert)
    asked = {"node_id": NODE, "store_id": here.stores["main"], "limits": Limits()}
    done = asyncio.run(outcomes.write(database, ended, [cleo.id], now=LATER, **asked))
    assert done.states == {anna.id: DeliveryState.BOUNCED, bert.id: DeliveryState.ACCEPTED}
    assert done.marked == {cleo.id}
    with database.look() as connection:
        assert tally.differences(connection) == []
    database.close()


def _overtaken(here: World, *claimed: Claimed) -> list[Ended]:
    """Return acceptances; a report has said already that the first of them bounced."""
    mark(here.connection, [each.id for each in claimed], node_id=NODE, now=NOW)
    bounced = Told(claimed[0].id, DeliveryEvent.REPORT_FAILED, "no-such-user", "5.1.1")
    deliveries.report(here.connection, [bounced], now=NOW)
    return [
        Ended(each.id, Settlement(each.id, DeliveryEvent.ACCEPT, attempt=1, reply="250"), place=each.place)
        for each in claimed
    ]


def test_the_rows_tell_what_was_written(postgres_url: str) -> None:
    with world(postgres_url) as here:
        anna, bert, cleo, dora = _claim(here, "anna", "bert", "cleo", "dora")
        asked = {"node_id": NODE, "store_id": here.stores["main"]}
        accepted, marks = _accepted(anna, bert), [cleo.id, dora.id]
        mark(here.connection, [anna.id, bert.id], node_id=NODE, now=NOW)
        here.wish(dora.recipient_id, receive=False)
        assert dots.recall(here.connection, accepted, marks, now=LATER, **asked) is None
        written = dots.write(here.connection, accepted, marks, now=LATER, **asked)
        assert (set(written.accepted), set(written.marked)) == ({anna.id, bert.id}, {cleo.id})
        told = dots.recall(here.connection, accepted, marks, now=LATER, **asked)
        assert told is not None
        assert (set(told.accepted), set(told.marked)) == ({anna.id, bert.id}, {cleo.id})
        assert dots.recall(here.connection, accepted, marks, now=LATER + DAY, **asked) is None
