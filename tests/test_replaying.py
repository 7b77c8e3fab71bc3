"""Mail read again with other rules, and everything that a mistake changed taken back."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from mailbound import classify, tokens
from mailbound.config import Policy
from mailbound.database import bounces, changes, inbound_mail, replaying, tables, undoing
from mailbound.database.inbound_mail import Arrival
from mailbound.inbound import findings
from mailbound.inbound.findings import Arrived
from mailbound.model import Kind, RecipientStatus, Source
from mailbound.reading import RecipientReport, Report
from mailbound.status import StatusCode
from mailbound.tokens import Key, Purpose
from world import COMMAND, DAY, NOW, World, world

KEY = Key(0, b"k" * 32)


def report(token: str, *, diagnostic: str, status: StatusCode | None = None) -> Report:
    said = RecipientReport(
        "anna@example.org", status=status or StatusCode(5, 1, 1), diagnostic_code=diagnostic
    )
    return Report(Kind.BOUNCE, (said,), delivered_to=(f"bounces+{token}@example.com",))


class Stage:
    """A world with one bounce that came by mail and made an address undeliverable."""

    def __init__(self, here: World) -> None:
        self.here = here
        here.person("anna")
        self.run_id = here.sending()
        delivery_id = here.send(self.run_id)["anna"]
        day = tokens.day_number(NOW)
        token = tokens.for_delivery(KEY, Purpose.RETURN_PATH, delivery_id, attempt=1, day=day)
        self.report = report(token, diagnostic="550 5.1.1 User unknown")
        self.softer = report(token, diagnostic="552 5.2.2 Mailbox full", status=StatusCode(5, 2, 2))
        mail = Arrival("uid", b"raw", 3, truncated=False)
        inbound_mail.keep(here.connection, here.stores["main"], [mail], now=NOW)
        (self.mail,) = inbound_mail.take(here.connection, limit=1)
        for finding in self.found(self.report):
            bounces.record(here.connection, finding, limits=Policy())

    def found(self, said: Report) -> list[findings.Finding]:
        arrived = Arrived(self.mail.id, self.here.stores["main"], NOW)
        return findings.find(said, arrived, keys={0: KEY}, rules=classify.rules())

    def replay(self, said: Report) -> list[replaying.Difference]:
        return replaying.replay(
            self.here.connection,
            self.mail.id,
            said,
            self.found(said),
            limits=Policy(),
            name="replay 1",
            now=NOW + DAY,
        )

    def standing(self) -> tuple[str, str, str]:
        """Return the status of anna's address, her opt-in, and what became of her bounces."""
        connection = self.here.connection
        status = connection.execute(sa.select(tables.recipient_status.c.status)).scalar_one()
        wish: Any = connection.execute(sa.select(tables.opt_in)).one()
        dispositions = connection.execute(sa.select(tables.bounce.c.disposition)).scalars()
        return status, changes.wish(wish.receive, wish.source), " ".join(dispositions)


def test_the_same_verdict_changes_nothing(database_url: str) -> None:
    with world(database_url) as here:
        stage = Stage(here)
        before = stage.standing()
        assert before == ("undeliverable", "out (hard_bounce)", "applied")
        assert stage.replay(stage.report) == []
        assert stage.standing() == before


def test_a_softer_verdict_gives_back_what_the_harder_one_took(database_url: str) -> None:
    with world(database_url) as here:
        stage = Stage(here)
        (difference,) = stage.replay(stage.softer)
        assert difference.before == "failed 5.1.1 no-such-user permanent"
        assert difference.after.startswith("failed 5.2.2 mailbox-full")
        assert stage.standing() == ("deliverable", "in (import)", "noted")
        assert stage.replay(stage.softer) == [], "a second time changes nothing"


def test_a_replay_can_be_taken_back(database_url: str) -> None:
    with world(database_url) as here:
        stage = Stage(here)
        stage.replay(stage.softer)
        undone = undoing.undo_replay(here.connection, "replay 1", cause=COMMAND, now=NOW + DAY)
        assert (len(undone.restored), len(undone.overtaken)) == (2, 0)
        assert stage.standing()[:2] == ("undeliverable", "out (hard_bounce)")
        again = undoing.undo_replay(here.connection, "replay 1", cause=COMMAND, now=NOW + DAY)
        assert (again.restored, again.overtaken) == ([], []), "only once"


def test_mail_that_says_nothing_any_more_is_undone(database_url: str) -> None:
    with world(database_url) as here:
        stage = Stage(here)
        (difference,) = stage.replay(Report(Kind.ORDINARY))
        assert (difference.after, difference.effect) == ("", "undone")
        assert stage.standing() == ("deliverable", "in (import)", "undone")


def test_a_bounce_is_undone_only_while_its_value_stands(database_url: str) -> None:
    with world(database_url) as here:
        stage = Stage(here)
        anna = here.connection.execute(sa.select(tables.recipient.c.id)).scalar_one()
        here.wish(anna, receive=False, source=Source.UNSUBSCRIBE)
        bounce_id = here.connection.execute(sa.select(tables.bounce.c.id)).scalar_one()
        undone = undoing.undo_bounces(here.connection, [bounce_id], cause=COMMAND, now=NOW)
        assert [line.kind for line in undone.restored] == ["status"]
        assert [line.kind for line in undone.overtaken] == ["opt_in"]
        assert stage.standing() == ("deliverable", "out (unsubscribe)", "undone")


def test_an_opt_in_that_did_not_exist_is_removed_again(database_url: str) -> None:
    with world(database_url) as here:
        anna = here.person("anna", opted_in=None)
        here.wish(anna, store="*", receive=True)
        delivery_id = here.send(here.sending())["anna"]
        day = tokens.day_number(NOW)
        token = tokens.for_delivery(KEY, Purpose.RETURN_PATH, delivery_id, attempt=1, day=day)
        arrived = Arrived(None, here.stores["main"], NOW)
        said = report(token, diagnostic="550 5.1.1 User unknown")
        (finding,) = findings.find(said, arrived, keys={0: KEY}, rules=classify.rules())
        recorded = bounces.record(here.connection, finding, limits=Policy())
        assert recorded is not None
        undoing.undo_bounces(here.connection, [recorded.bounce_id], cause=COMMAND, now=NOW)
        rows = here.connection.execute(sa.select(tables.opt_in.c.store_id, tables.opt_in.c.receive)).all()
        assert [tuple(row) for row in rows] == [(0, True)]


def test_the_status_before_a_bounce_comes_back(database_url: str) -> None:
    with world(database_url) as here:
        anna = here.person("anna")
        address_id = here.connection.execute(
            sa.select(tables.recipient.c.address_id).where(tables.recipient.c.id == anna)
        ).scalar_one()
        changes.set_status(
            here.connection,
            address_id=address_id,
            status=RecipientStatus.PROBATION,
            cause=COMMAND,
            now=NOW - DAY,
        )
        delivery_id = here.send(here.sending())["anna"]
        day = tokens.day_number(NOW)
        token = tokens.for_delivery(KEY, Purpose.RETURN_PATH, delivery_id, attempt=1, day=day)
        said = report(token, diagnostic="550 5.1.1 User unknown")
        (finding,) = findings.find(
            said, Arrived(None, here.stores["main"], NOW), keys={0: KEY}, rules=classify.rules()
        )
        recorded = bounces.record(here.connection, finding, limits=Policy())
        assert recorded is not None
        undoing.undo_bounces(here.connection, [recorded.bounce_id], cause=COMMAND, now=NOW)
        status = here.connection.execute(sa.select(tables.recipient_status.c.status)).scalar_one()
        assert status == "probation"
