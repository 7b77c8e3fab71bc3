"""Undoing a bounce: what was there before comes back, and only while what the bounce wrote still stands."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from mailbound import policy
from mailbound.database import bounces, changes, histories, recipients, tables, undoing
from mailbound.database.bounces import Finding, Recorded
from mailbound.model import Action, Category, Evidence, Kind, RecipientStatus, Source, Verdict
from world import COMMAND, DAY, NOW, Limits, World, world


class Stage:
    """One person with a delivery, who had nothing against it."""

    def __init__(self, here: World) -> None:
        self.here = here
        self.connection = here.connection
        self.anna = here.person("anna")
        self.sent = here.send(here.sending())["anna"]
        row = self.connection.execute(sa.select(tables.recipient)).one()
        self.address_id = row.address_id
        self.days = 0

    def say(self, category: Category, *, permanent: bool = True, action: Action = Action.FAILED) -> Recorded:
        """Record what is said of a new delivery, a day after the last one; the first is said of `sent`."""
        at = NOW + self.days * DAY
        if self.days:
            activity = self.here.activity(f"day-{self.days}", starts_at=at)
            self.sent = self.here.send(self.here.sending(activity, at=at), at=at).get("anna", self.sent)
        self.days += 1
        finding = Finding(
            kind=Kind.BOUNCE,
            at=at,
            action=action,
            verdict=Verdict(category, permanent, None, "test"),
            evidence=Evidence.SIGNED,
            delivery_id=self.sent,
            attempt=1,
        )
        recorded = bounces.record(self.connection, finding, limits=Limits())
        assert recorded is not None
        return recorded

    def undo(self, *recorded: Recorded) -> undoing.Undone:
        ids = [each.bounce_id for each in recorded]
        return undoing.undo_bounces(self.connection, ids, cause=COMMAND, now=NOW + self.days * DAY)

    def put(self, status: RecipientStatus, **more: Any) -> None:
        changes.set_status(
            self.connection, address_id=self.address_id, status=status, cause=COMMAND, now=NOW - DAY, **more
        )

    @property
    def status(self) -> recipients.Status:
        return recipients.status(self.connection, self.address_id)

    @property
    def wish(self) -> str:
        row = self.connection.execute(sa.select(tables.opt_in)).one()
        return changes.wish(row.receive, row.source)


def test_a_status_comes_back_with_all_that_belongs_to_it(database_url: str) -> None:
    with world(database_url) as here:
        stage = Stage(here)
        stage.put(RecipientStatus.SUSPENDED, category="mailbox-full", until=NOW + 9 * DAY)
        before = stage.status
        dead = stage.say(Category.NO_SUCH_USER)
        assert stage.status.status is RecipientStatus.UNDELIVERABLE
        stage.undo(dead)
        assert stage.status == before
        assert before.until == NOW + 9 * DAY


def test_a_wish_comes_back_as_old_as_it_was(database_url: str) -> None:
    with world(database_url) as here:
        stage = Stage(here)
        stage.say(Category.NETWORK, permanent=False)
        stage.undo(stage.say(Category.NO_SUCH_USER))
        row = here.connection.execute(sa.select(tables.opt_in)).one()
        assert (row.receive, row.source, row.changed_at) == (True, "import", NOW)


def test_the_score_is_less_by_what_is_undone(database_url: str) -> None:
    with world(database_url) as here:
        stage = Stage(here)
        full = [stage.say(Category.MAILBOX_FULL, permanent=False) for _ in range(3)]
        stage.undo(full[1])
        now = NOW + 3 * DAY
        known = histories.before(here.connection, {0: stage.address_id}, at=now, quiet_before=now - 5 * DAY)[
            0
        ]
        assert policy.soft_score(known.failures, now=now, limits=Limits()) == 2


def test_what_was_overwritten_stays_and_never_comes_back(database_url: str) -> None:
    """Suspended by one bounce, dead by a later one: the earlier is undone, and then the later."""
    with world(database_url) as here:
        stage = Stage(here)
        suspending = [stage.say(Category.MAILBOX_FULL, permanent=False) for _ in range(6)][-1]
        assert stage.status.status is RecipientStatus.SUSPENDED
        dead = stage.say(Category.NO_SUCH_USER)
        undone = stage.undo(suspending)
        assert [line.kind for line in undone.overtaken] == ["status"]
        assert stage.status.status is RecipientStatus.UNDELIVERABLE
        stage.undo(dead)
        assert stage.status.status is RecipientStatus.DELIVERABLE


def test_what_was_undone_in_between_does_not_matter(database_url: str) -> None:
    with world(database_url) as here:
        stage = Stage(here)
        suspending = [stage.say(Category.MAILBOX_FULL, permanent=False) for _ in range(6)][-1]
        stage.undo(stage.say(Category.NO_SUCH_USER))
        assert stage.status.status is RecipientStatus.SUSPENDED
        stage.undo(suspending)
        assert stage.status.status is RecipientStatus.DELIVERABLE


def test_the_same_value_by_another_cause_stays(database_url: str) -> None:
    """Dead, reinstated, and dead again: the first death says nothing about the second."""
    with world(database_url) as here:
        stage = Stage(here)
        first = stage.say(Category.NO_SUCH_USER)
        recipients.reinstate(here.connection, stage.address_id, who="test", now=NOW)
        stage.say(Category.NO_SUCH_USER)
        undone = stage.undo(first)
        assert undone.restored == []
        assert (stage.status.status, stage.wish) == (RecipientStatus.UNDELIVERABLE, "out (hard_bounce)")


def test_an_undone_arrival_is_none(database_url: str) -> None:
    with world(database_url) as here:
        stage = Stage(here)
        for _ in range(2):
            stage.say(Category.UNCLEAR)
        stage.undo(stage.say(Category.UNCLEAR, permanent=False, action=Action.DELIVERED))
        assert stage.say(Category.UNCLEAR).decision.opt_out is Source.HARD_BOUNCE
