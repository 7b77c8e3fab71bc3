"""The watch: mass bounces change nobody, however they come, and what they changed before it looked is taken back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from box import Box
from ledger_relay import LedgerRelay
from mailbound.config import Guard, Inbound
from mailbound.config import Policy as Limits
from mailbound.database import bounces, changes, erasing, holds, releasing, runs, schema, tables, undoing
from mailbound.database.bounces import Finding
from mailbound.database.changes import Cause
from mailbound.database.engine import Database
from mailbound.database.leases import Lease
from mailbound.database.releasing import Which
from mailbound.lifecycle import RunEvent, RunState
from mailbound.model import Action, Category, Evidence, Kind, RecipientStatus, Verdict
from mailbound.status import StatusCode
from mailbound.watch import Parts, Watch
from world import DAY, NODE, NOW, World

DEAD = Verdict(Category.NO_SUCH_USER, permanent=True, status=StatusCode(5, 1, 1), rule="test")
FULL = Verdict(Category.MAILBOX_FULL, permanent=False, status=StatusCode(4, 2, 2), rule="test")
CAUSE = Cause("command", who="test")
PEOPLE = 10


class Stage:
    """A run that was sent to ten people, and a watch that holds five dead ones who are a fifth of it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = NOW
        with database.begin() as connection:
            here = World(connection)
            for number in range(PEOPLE):
                here.person(f"p{number}", address=f"p{number}@d{number}.test")
            self.run_id = here.sending()
            self.sent = here.send(self.run_id)

    def watch(self, **limits: Any) -> Watch:
        """Return a watch that has not looked yet, as after a restart or on another node."""
        lease = Lease(self.database, "watching", node_id=NODE)
        known = {"count": 5, "run_share": 0.2, "alike_share": 0.2, "domain_share": 0.5, **limits}
        parts = Parts(self.database, Guard(**known), Inbound(), {1}, lease, clock=lambda: self.now)
        return Watch(parts)

    def look(self, **limits: Any) -> list[Any]:
        """Look once, and return the alarms."""
        with capture_logs() as logged:
            asyncio.run(self.watch(**limits).look())
        return [line for line in logged if line["event"] == "bounces.held"]

    def say(
        self, *numbers: int, verdict: Verdict = DEAD, text: str = "no such user {}", **finding: Any
    ) -> None:
        """Let a report or a reply say something of people."""
        with self.database.begin() as connection:
            for number in numbers:
                known: dict[str, Any] = {
                    "kind": Kind.BOUNCE,
                    "at": self.now,
                    "action": Action.FAILED,
                    "evidence": Evidence.SIGNED,
                    "attempt": 1,
                    "store_id": 1,
                    "diagnostic": text.format(f"p{number}"),
                    **finding,
                }
                found = Finding(verdict=verdict, delivery_id=self.sent[f"p{number}"], **known)
                bounces.record(connection, found, limits=Limits())

    def dead(self) -> list[str]:
        """Return who is undeliverable and out."""
        with self.database.look() as connection:
            query = (
                sa.select(tables.recipient.c.external_id)
                .join(
                    tables.recipient_status,
                    tables.recipient_status.c.address_id == tables.recipient.c.address_id,
                )
                .join(tables.opt_in, tables.opt_in.c.recipient_id == tables.recipient.c.id)
                .where(tables.recipient_status.c.status == "undeliverable", sa.not_(tables.opt_in.c.receive))
            )
            return sorted(connection.execute(query).scalars())

    def touched(self) -> list[str]:
        """Return who is out or not deliverable."""
        with self.database.look() as connection:
            out = sa.select(tables.opt_in.c.recipient_id).where(sa.not_(tables.opt_in.c.receive))
            bad = sa.select(tables.recipient_status.c.address_id).where(
                tables.recipient_status.c.status != "deliverable"
            )
            query = sa.select(tables.recipient.c.external_id).where(
                tables.recipient.c.id.in_(out) | tables.recipient.c.address_id.in_(bad)
            )
            return sorted(connection.execute(query).scalars())

    def dispositions(self) -> str:
        """Return what became of all bounces, in order, by its first letter."""
        with self.database.look() as connection:
            query = sa.select(tables.bounce.c.disposition).order_by(tables.bounce.c.id)
            return "".join(each[0] for each in connection.execute(query).scalars())

    def state(self) -> RunState:
        with self.database.look() as connection:
            return runs.find(connection, self.run_id).state

    def release(self, **which: Any) -> list[releasing.Settled]:
        with self.database.begin() as connection:
            ids = releasing.numbers(connection, Which(**which))
            return releasing.release(connection, ids, limits=Limits(), who="ada", now=self.now)

    def discard(self, **which: Any) -> list[releasing.Settled]:
        with self.database.begin() as connection:
            return releasing.discard(
                connection, releasing.numbers(connection, Which(**which)), who="ada", now=self.now
            )

    def holds(self) -> list[holds.Hold]:
        with self.database.look() as connection:
            return holds.open_ones(connection)


@contextmanager
def staged(url: str) -> Iterator[Stage]:
    database = Database(url, checkpoints=True)
    schema.upgrade(database)
    try:
        yield Stage(database)
    finally:
        database.close()


def test_mass_bounces_change_nobody_and_halt_their_run_with_one_alarm(database_url: str) -> None:
    with staged(database_url) as stage:
        stage.say(0, 1, 2, 3)
        assert stage.look() == []
        assert stage.dead() == ["p0", "p1", "p2", "p3"]
        stage.say(4)
        alarms = stage.look()
        assert [(alarm["trait"], alarm["bounces"], alarm["halted"]) for alarm in alarms] == [
            ("text", 5, [stage.run_id])
        ]
        assert alarms[0]["why"] == "5 of 10 deliveries failed for good with one text"
        assert alarms[0]["subject"] == "no such user someone"
        assert (stage.touched(), stage.dispositions(), stage.state()) == ([], "hhhhh", RunState.HALTED)
        stage.say(5, 6)
        assert (stage.look(), stage.touched(), stage.dispositions()) == ([], [], "hhhhhhh")


def test_a_refusal_in_the_session_counts_as_a_report_does(sqlite_url: str) -> None:
    with staged(sqlite_url) as stage:
        stage.say(0, 1, 2, evidence=Evidence.DIRECT)
        stage.say(3, 4)
        assert [alarm["bounces"] for alarm in stage.look()] == [5]
        assert stage.touched() == []


def test_late_reports_are_held_though_their_run_was_sent(sqlite_url: str) -> None:
    with staged(sqlite_url) as stage:
        with stage.database.begin() as connection:
            runs.move(connection, stage.run_id, RunEvent.FINISH, now=NOW)
        stage.say(0, 1, 2, 3, 4)
        assert [alarm["halted"] for alarm in stage.look()] == [[]]
        stage.say(5)
        assert (stage.touched(), stage.dispositions(), stage.state()) == ([], "hhhhhh", RunState.SENT)


def test_what_does_not_fit_a_hold_is_believed(sqlite_url: str) -> None:
    with staged(sqlite_url) as stage:
        with stage.database.begin() as connection:
            runs.move(connection, stage.run_id, RunEvent.FINISH, now=NOW)
        stage.say(9, text="closed for ever")
        stage.say(0, 1, 2, 3, 4)
        stage.look()
        stage.say(8, text="moved away")
        assert stage.dead() == ["p8", "p9"]


@pytest.mark.parametrize(
    ("finding", "limits", "trait"),
    [
        ({"text": "no such user"}, {}, "text"),
        ({"text": ""}, {}, "text"),
        ({"text": "{} a", "remote_mta": "mx1.example.net"}, {"alike_share": 0.4, "count": 5}, "text"),
    ],
    ids=["words", "a status alone", "words before hosts"],
)
def test_a_hold_says_what_its_bounces_have_in_common(
    sqlite_url: str, finding: Any, limits: Any, trait: str
) -> None:
    with staged(sqlite_url) as stage:
        stage.say(0, 1, 2, 3, 4, **finding)
        assert [alarm["trait"] for alarm in stage.look(**limits)] == [trait]


TEXTS = ("gone", "away", "nobody", "closed", "dead")


def test_hosts_of_one_provider_are_held_though_their_words_differ(sqlite_url: str) -> None:
    with staged(sqlite_url) as stage:
        for number, text in enumerate(TEXTS):
            stage.say(number, text=text, remote_mta=f"mx{number}.mail.provider.test")
        assert [(alarm["trait"], alarm["why"]) for alarm in stage.look()] == [
            ("remote", "5 of 10 deliveries failed for good at provider.test")
        ]
        assert stage.touched() == []


def test_a_share_of_a_run_is_held_though_nothing_else_is_alike(sqlite_url: str) -> None:
    with staged(sqlite_url) as stage:
        for number, text in enumerate(TEXTS):
            stage.say(number, text=text)
        assert [(alarm["trait"], alarm["halted"]) for alarm in stage.look()] == [("run", [stage.run_id])]
        assert stage.touched() == []


def test_one_domain_is_held_and_its_run_goes_on(sqlite_url: str) -> None:
    with staged(sqlite_url) as stage:
        with stage.database.begin() as connection:
            here = World(connection)
            for number in range(5):
                here.person(f"q{number}", address=f"q{number}@one.test")
            stage.run_id = here.sending(here.activity("summer"))
            stage.sent = here.send(stage.run_id)
            stage.sent |= {f"p{number}": stage.sent[f"q{number}"] for number in range(5)}
        for number, text in enumerate(TEXTS):
            stage.say(number, text=text)
        alarms = stage.look(run_share=0.9)
        assert [(alarm["trait"], alarm["halted"]) for alarm in alarms] == [("domain", [])]
        assert (stage.touched(), stage.state()) == ([], RunState.SENDING)


@pytest.mark.parametrize(
    "finding",
    [
        {"verdict": FULL},
        {"evidence": Evidence.UNSIGNED},
        {"action": Action.DELAYED, "kind": Kind.DELAY},
        {"verdict": Verdict(Category.BLOCKED, permanent=True, status=None, rule="test")},
    ],
    ids=["transient", "forged", "delayed", "blames us"],
)
def test_what_kills_nobody_trips_nothing(sqlite_url: str, finding: Any) -> None:
    with staged(sqlite_url) as stage:
        stage.say(*range(PEOPLE), **finding)
        assert stage.look() == []
        assert stage.state() is RunState.SENDING


def test_what_came_before_the_window_does_not_count(sqlite_url: str) -> None:
    with staged(sqlite_url) as stage:
        stage.say(0, 1, 2)
        stage.now = NOW + 2 * DAY
        stage.say(3, 4)
        assert stage.look() == []


def test_released_bounces_are_decided_once_and_can_be_undone(database_url: str) -> None:
    with staged(database_url) as stage:
        stage.say(0, 1, 2, 3, 4)
        stage.look()
        hold = stage.holds()[0]
        done = stage.release(hold=hold.id)
        assert [each.decision.disposition for each in done if each.decision] == ["applied"] * 5
        assert stage.dead() == ["p0", "p1", "p2", "p3", "p4"]
        assert stage.holds() == []
        with stage.database.begin() as connection:
            ids = [each.id for each in done]
            assert releasing.release(connection, ids, limits=Limits(), who="bob", now=NOW) == []
        assert stage.look() == []  # what an operator settled trips nothing again
        with stage.database.begin() as connection:
            undoing.undo_bounces(connection, ids, cause=CAUSE, now=NOW)
        assert (stage.touched(), stage.dispositions()) == ([], "uuuuu")


def test_discarded_bounces_count_for_nothing(sqlite_url: str) -> None:
    with staged(sqlite_url) as stage:
        stage.say(0, 1, 2, 3, 4)
        stage.look()
        assert len(stage.discard()) == 5
        assert (stage.touched(), stage.dispositions(), stage.holds()) == ([], "uuuuu", [])
        stage.say(5)
        assert stage.touched() == []  # its run is still halted


def test_a_hold_ends_with_the_last_of_its_bounces(sqlite_url: str) -> None:
    with staged(sqlite_url) as stage:
        stage.say(0, 1, 2, 3, 4)
        stage.look()
        stage.release(ids=[1, 2])
        assert [hold.id for hold in stage.holds()] == [1]
        stage.discard(run=stage.run_id)
        assert (stage.holds(), stage.dead(), stage.dispositions()) == ([], ["p0", "p1"], "aauuu")


def test_a_release_asks_what_is_known_now(sqlite_url: str) -> None:
    with staged(sqlite_url) as stage:
        stage.say(0, 1, 2, 3, 4)
        stage.look()
        with stage.database.begin() as connection:
            address = sa.select(tables.delivery.c.address_id).where(tables.delivery.c.id == stage.sent["p0"])
            changes.set_status(
                connection,
                address_id=connection.execute(address).scalar_one(),
                status=RecipientStatus.PROBATION,
                cause=CAUSE,
                now=NOW + DAY,
            )
        done = stage.release()
        assert [each.decision.disposition for each in done if each.decision] == ["noted", *["applied"] * 4]
        assert "p0" not in stage.dead()


def test_a_big_mass_is_gathered_in_small_transactions(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "_AT_ONCE", 2)
    with staged(sqlite_url) as stage:
        stage.say(*range(PEOPLE))
        assert [alarm["bounces"] for alarm in stage.look()] == [PEOPLE]
        assert stage.touched() == []


def test_the_groups_say_why_how_many_and_since_when(sqlite_url: str) -> None:
    with staged(sqlite_url) as stage:
        stage.say(0, 1, 2, 3, 4)
        stage.look()
        stage.say(5, verdict=FULL, text="full", at=NOW + DAY)
        with stage.database.look() as connection:
            groups = releasing.groups(connection)
        assert [(group.hold, group.trait, group.subject, group.bounces) for group in groups] == [
            (1, "text", "no such user someone", 5),
            (None, "halt", "1", 1),
        ]
        assert [(group.run, group.activity, group.store) for group in groups] == [(1, "spring", "main")] * 2
        assert [(group.since, group.until) for group in groups] == [(NOW, NOW), (NOW + DAY, NOW + DAY)]


def test_nothing_is_told_of_the_erased(sqlite_url: str) -> None:
    with staged(sqlite_url) as stage:
        stage.say(0, text="no such user {}, says ada")
        with stage.database.begin() as connection:
            who = sa.select(tables.recipient.c.id).where(tables.recipient.c.external_id == "p0")
            erasing.erase(connection, connection.execute(who).scalar_one(), who="ada", now=NOW)
            row = connection.execute(sa.select(tables.bounce)).one()
        assert (row.address, row.diagnostic, row.gist) == ("", "", "")


# --- the daemon --------------------------------------------------------------------------------------------


def test_a_relay_that_bounces_everybody_empties_no_list(tmp_path: Path) -> None:
    people = {f"r{number}": f"refuse.{number}@example.com" for number in range(30)}
    people |= {f"b{number}": f"bounce.{number}@example.com" for number in range(30)}
    with LedgerRelay(tmp_path / "ledger", form="postfix") as relay, Box(tmp_path, **relay.settings) as box:
        box.populate(people)
        box.start()
        box.schedule("spring")

        def dispositions() -> Counter[str]:
            rows = box.rows(sa.select(tables.bounce.c.disposition, sa.func.count()).group_by("disposition"))
            return Counter(dict(rows))

        def alarms() -> int:
            return sum(each["event"] == "bounces.held" for each in box.events())

        box.wait(lambda: alarms() > 0 and set(dispositions()) == {"held"}, "mass bounces to be held")
        assert box.run_state("spring") == "halted"
        assert box.rows(sa.select(tables.opt_in).where(sa.not_(tables.opt_in.c.receive))) == []
        bad = tables.recipient_status.c.status != "deliverable"
        assert box.rows(sa.select(tables.recipient_status).where(bad)) == []
        assert box.stop() == 0
