"""Soft bounces sent again: so many times, so long after each, once each, and never to whom it is of no use."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from box import Box
from ledger_relay import LedgerRelay
from mailbound.database import (
    bounces,
    deliveries,
    erasing,
    remaining,
    resending,
    runs,
    tables,
    tally,
    undoing,
)
from mailbound.database.bounces import Finding
from mailbound.database.deliveries import Settlement
from mailbound.lifecycle import DeliveryEvent, RunEvent, RunState
from mailbound.model import Action, Category, Evidence, Kind, RecipientStatus, Source, Verdict
from world import COMMAND, DAY, NODE, NOW, Limits, World, mark, world

HOUR = timedelta(hours=1)
FULL = Verdict(Category.MAILBOX_FULL, permanent=False, status=None, rule="test")
DEAD = Verdict(Category.NO_SUCH_USER, permanent=True, status=None, rule="test")
BLOCKED = Verdict(Category.BLOCKED, permanent=True, status=None, rule="test")


class Stage:
    """A run to anna that is over, and whose message comes back again and again."""

    def __init__(self, here: World, *, times: int = 2, **plan: Any) -> None:
        self.here = here
        self.connection = here.connection
        self.anna = here.person("anna")
        activity = here.activity(resend_soft=times, **{"resend_every": DAY, **plan})
        self.run_id = here.sending(activity)
        self.delivery_id = here.send(self.run_id)["anna"]
        self.finish(NOW)

    def finish(self, at: datetime) -> None:
        assert not remaining.any_open(self.connection, self.run_id)
        runs.move(self.connection, self.run_id, RunEvent.FINISH, now=at)

    def say(self, verdict: Verdict = FULL, *, at: datetime = NOW, attempt: int = 1, **more: Any) -> None:
        details: dict[str, Any] = {"kind": Kind.BOUNCE, "action": Action.FAILED, **more}
        finding = Finding(
            at=at,
            verdict=verdict,
            evidence=Evidence.SIGNED,
            delivery_id=self.delivery_id,
            attempt=attempt,
            **details,
        )
        self.recorded = bounces.record(self.connection, finding, limits=Limits())

    def requeue(self, at: datetime) -> dict[int, int]:
        assert resending.is_due(self.connection, now=at) == (
            self.row.next_attempt_at is not None and self._due(at)
        )
        return resending.requeue(self.connection, now=at)

    def _due(self, at: datetime) -> bool:
        waits = self.row.state == "bounced" and self.row.next_attempt_at <= at
        return waits and self.state in {RunState.SENDING, RunState.SENT}

    @property
    def row(self) -> Any:
        return self.connection.execute(sa.select(tables.delivery)).one()

    @property
    def state(self) -> RunState:
        return runs.find(self.connection, self.run_id).state


def test_a_soft_bounce_is_sent_again_so_many_times_and_then_no_more(database_url: str) -> None:
    with world(database_url) as here:
        stage = Stage(here, times=2, expires_after=20 * DAY)
        for attempt in (1, 2):
            at = NOW + (attempt - 1) * (DAY + HOUR)
            stage.say(at=at, attempt=attempt)
            assert (stage.row.state, stage.state) == ("bounced", "sent"), "it keeps nobody waiting"
            assert stage.requeue(at + DAY - HOUR) == {}
            assert stage.requeue(at + DAY) == {stage.run_id: 1}
            assert (stage.row.state, stage.state) == ("queued", "sending")
            (claimed,) = here.claim(stage.run_id, at=at + DAY)
            assert claimed.attempt == attempt + 1, "its tokens are new"
            assert mark(here.connection, [claimed.id], node_id=NODE, now=at + DAY) == {claimed.id}
            accepted = Settlement(claimed.id, DeliveryEvent.ACCEPT, attempt=claimed.attempt)
            deliveries.settle(here.connection, [accepted], node_id=NODE, now=at + DAY)
            assert tally.of_run(here.connection, stage.run_id) == {"accepted": 1}
            stage.finish(at + DAY)
        stage.say(at=NOW + 3 * DAY, attempt=3)
        assert (stage.row.state, stage.row.next_attempt_at) == ("bounced", None)
        assert stage.requeue(NOW + 9 * DAY) == {}


def test_it_is_sent_again_once(database_url: str) -> None:
    with world(database_url) as here:
        stage = Stage(here)
        stage.say()
        assert stage.requeue(NOW + DAY) == {stage.run_id: 1}
        assert stage.requeue(NOW + DAY) == {}
        stage.say()
        assert stage.recorded is None
        assert stage.row.state == "queued"


def test_by_default_nothing_is_sent_again(database_url: str) -> None:
    with world(database_url) as here:
        stage = Stage(here, times=0)
        stage.say()
        assert stage.row.next_attempt_at is None


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({"verdict": DEAD}, id="a dead address"),
        pytest.param({"verdict": BLOCKED}, id="our own fault"),
        pytest.param(
            {"verdict": FULL, "addresses": ("member@example.net",)}, id="somebody behind the address"
        ),
        pytest.param({"verdict": FULL, "at": NOW + 3 * DAY + HOUR}, id="too late for the activity"),
        pytest.param({"verdict": FULL, "action": Action.DELAYED, "kind": Kind.DELAY}, id="a delay"),
    ],
)
def test_what_is_of_no_use_is_not_sent_again(database_url: str, said: dict[str, Any]) -> None:
    with world(database_url) as here:
        stage = Stage(here)
        stage.say(**said)
        assert stage.row.next_attempt_at is None


@pytest.mark.parametrize("what", ["dead", "arrived", "undone", "unsubscribed", "suspended", "erased", "late"])
def test_what_comes_in_between_calls_it_off(database_url: str, what: str) -> None:
    with world(database_url) as here:
        stage = Stage(here)
        stage.say()
        assert stage.recorded is not None
        later, due = NOW + HOUR, NOW + DAY
        if what == "dead":
            stage.say(DEAD, at=later)
        elif what == "arrived":
            stage.say(at=later, kind=Kind.SUCCESS, action=Action.DELIVERED)
        elif what == "undone":
            undoing.undo_bounces(here.connection, [stage.recorded.bounce_id], cause=COMMAND, now=later)
        elif what == "unsubscribed":
            here.wish(stage.anna, receive=False, source=Source.UNSUBSCRIBE)
        elif what == "suspended":
            status = {"status": RecipientStatus.SUSPENDED, "since": later, "until": NOW + 9 * DAY}
            row = {"address_id": stage.row.address_id, **status}
            here.connection.execute(tables.recipient_status.insert().values(row))
        elif what == "erased":
            erasing.erase(here.connection, stage.anna, who="test", now=later)
        else:
            due = NOW + 5 * DAY
        assert resending.requeue(here.connection, now=due) == {}
        assert (stage.row.state, stage.row.next_attempt_at, stage.state) == ("bounced", None, "sent")


def test_a_halted_run_sends_nothing_again_until_it_is_resumed(database_url: str) -> None:
    with world(database_url) as here:
        stage = Stage(here)
        stage.say()
        runs.move(here.connection, stage.run_id, RunEvent.REOPEN, now=NOW)
        runs.move(here.connection, stage.run_id, RunEvent.HALT, now=NOW)
        assert stage.requeue(NOW + DAY) == {}
        runs.move(here.connection, stage.run_id, RunEvent.RESUME, now=NOW + DAY)
        assert stage.requeue(NOW + DAY) == {stage.run_id: 1}


def test_a_daemon_sends_again_what_came_back_softly_and_only_that(tmp_path: Path) -> None:
    with LedgerRelay(tmp_path / "ledger") as relay, Box(tmp_path, **relay.settings) as box:
        box.populate({"anna": "full@remote.test", "bert": "bounce@remote.test"})
        box.schedule("spring", resend_soft=1, resend_every=timedelta(seconds=1))
        box.start()
        full = sa.select(tables.bounce.c.attempt).where(tables.bounce.c.category == Category.MAILBOX_FULL)
        box.wait(lambda: len(box.rows(full)) == 2, "the mailbox to be full for the second time")
        box.wait(lambda: box.run_state("spring") == "sent", "the run to end")
        assert box.stop() == 0
        assert sorted(row.attempt for row in box.rows(full)) == [1, 2], "each by a token of its own"
        assert Counter(address for _, address in relay.ledger()) == {
            "full@remote.test": 2,
            "bounce@remote.test": 1,
        }
        assert len({number for number, address in relay.ledger() if address == "full@remote.test"}) == 1
        assert box.states("spring") == {"anna": "bounced", "bert": "bounced"}
        requeued = [event["deliveries"] for event in box.events() if event["event"] == "delivery.requeued"]
        assert requeued == [1]
