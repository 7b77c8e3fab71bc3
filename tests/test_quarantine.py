"""Quarantine: what nothing shows to be genuine changes nobody, may be accepted, and takes no more room than it may."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

import inbox
from mailbound.config import Guard, Inbound
from mailbound.config import Policy as Limits
from mailbound.database import bounces, inbound_mail, quarantine, tables, undoing
from mailbound.database.engine import Database
from mailbound.database.inbound_mail import Arrival, Understood
from mailbound.database.leases import Lease
from mailbound.errors import InputError
from mailbound.model import Action, Category, Evidence, Kind, Verdict
from mailbound.status import StatusCode
from mailbound.watch import Parts, Watch
from test_bounces import ledger, record, statuses, wishes
from world import COMMAND, DAY, NODE, NOW, World, world

DEAD = Verdict(Category.NO_SUCH_USER, permanent=True, status=StatusCode(5, 1, 1), rule="test")


def forged(here: World, name: str = "anna@example.org", *, mail: int | None = None, **finding: Any) -> int:
    """Return the number of a report without a token."""
    known = {"evidence": Evidence.UNSIGNED, "attempt": 0, "addresses": (name,), "mail_id": mail, **finding}
    recorded = record(here, None, DEAD, **known)
    assert recorded is not None
    return recorded.bounce_id


def mail(here: World, size: int = 1000, *, at: Any = NOW) -> int:
    """Return the number of a mail that is kept."""
    latest = sa.select(sa.func.coalesce(sa.func.max(tables.inbound_mail.c.id), 0))
    number = int(here.connection.execute(latest).scalar_one())
    arrival = Arrival(str(number), b"mail %d" % number, size, truncated=False)
    inbound_mail.keep(here.connection, here.stores["main"], [arrival], now=at)
    return int(here.connection.execute(latest).scalar_one())


def accept(here: World, number: int) -> str:
    """Return what became of a report that was accepted, and why."""
    decision = quarantine.accept(here.connection, number, limits=Limits(), who="ada")
    return f"{decision.disposition}: {decision.why}"


def test_a_report_that_is_accepted_counts_as_if_it_were_signed(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        run_id = here.sending()
        sent = here.send(run_id)
        number = forged(here)
        assert (statuses(here), ledger(here)) == ({}, [])
        assert accept(here, number) == "applied: no-such-user: the address is dead"
        assert statuses(here) == {"anna@example.org": "undeliverable"}
        assert wishes(here) == {("anna", "main"): "out hard_bounce"}
        assert here.states(run_id) == {"anna": "bounced"}
        row = bounces.find(here.connection, number)
        assert (row.delivery_id, row.run_id, row.evidence) == (sent["anna"], run_id, "unsigned")
        assert row.why == "accepted by ada: no-such-user: the address is dead"
        undoing.undo_bounces(here.connection, [number], cause=COMMAND, now=NOW)
        assert wishes(here) == {("anna", "main"): "in import"}


def test_it_is_about_the_last_message_before_it_of_the_store_whose_mailbox_it_came_to(
    sqlite_url: str,
) -> None:
    with world(sqlite_url) as here:
        anna = here.person("anna")
        here.wish(anna, store="other", receive=True)
        first = here.send(here.sending(at=NOW - DAY), at=NOW - DAY)["anna"]
        here.send(here.sending(here.activity("autumn", store="other")), at=NOW)
        here.send(here.sending(here.activity("winter"), at=NOW + DAY), at=NOW + DAY)
        accept(here, number := forged(here))
        assert bounces.find(here.connection, number).delivery_id == first


@pytest.mark.parametrize(
    ("name", "days"), [("bert@example.org", 0), ("no address", 0), ("anna@example.org", 31), ("", 0)]
)
def test_a_report_about_nobody_cannot_be_accepted(sqlite_url: str, name: str, days: int) -> None:
    with world(sqlite_url) as here:
        here.person("anna")
        here.send(here.sending())
        number = forged(here, name, at=NOW + days * DAY)
        with pytest.raises(InputError, match=r"speaks of nobody whom we mailed within 30 days"):
            accept(here, number)


def test_what_a_signed_report_said_already_is_not_counted_again(sqlite_url: str) -> None:
    with world(sqlite_url) as here:
        here.person("anna")
        record(here, here.send(here.sending())["anna"])
        before = ledger(here)
        assert accept(here, forged(here)) == "undone: it was known already"
        assert ledger(here) == before


def test_a_wish_without_a_token_is_honoured_when_it_is_accepted(sqlite_url: str) -> None:
    with world(sqlite_url) as here:
        here.person("anna", address="family@example.org")
        here.person("bert", address="family@example.org")
        wish = {"kind": Kind.UNSUBSCRIBE, "action": Action.UNSUBSCRIBED}
        number = forged(here, "family@example.org", **wish)
        assert wishes(here) == {("anna", "main"): "in import", ("bert", "main"): "in import"}
        assert accept(here, number) == "applied: the recipient unsubscribed: out for this store"
        assert wishes(here) == {("anna", "main"): "out unsubscribe", ("bert", "main"): "out unsubscribe"}


def test_a_report_is_accepted_or_dropped_once(sqlite_url: str) -> None:
    with world(sqlite_url) as here:
        here.person("anna")
        here.send(here.sending())
        accept(here, number := forged(here))
        dropped = forged(here)
        quarantine.drop(here.connection, dropped, who="ada")
        for each in (number, dropped):
            with pytest.raises(InputError, match="is not in quarantine"):
                accept(here, each)
            with pytest.raises(InputError, match="is not in quarantine"):
                quarantine.drop(here.connection, each, who="ada")


def test_a_mail_is_forgotten_with_the_last_of_its_reports(sqlite_url: str) -> None:
    with world(sqlite_url) as here:
        kept = mail(here)
        first, second = (forged(here, name, mail=kept) for name in ("a@example.org", "b@example.org"))
        quarantine.drop(here.connection, first, who="ada")
        assert inbound_mail.find_raw(here.connection, kept) is not None
        quarantine.drop(here.connection, second, who="ada")
        assert inbound_mail.find_raw(here.connection, kept) is None
        assert bounces.find(here.connection, first).why == "dropped by ada"


def test_over_its_budget_the_oldest_go_first(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        genuine = mail(here)
        record(here, here.send(here.sending())["anna"], mail_id=genuine)
        kept = [mail(here) for _ in range(5)]
        for each in kept:
            forged(here, f"{each}@example.org", mail=each)
        assert quarantine.room(here.connection) == quarantine.Room(5, 5000)
        assert quarantine.shrink(here.connection, budget_octets=2500, deleting={1}) == quarantine.Room(
            3, 3000
        )
        left = [number for number in (genuine, *kept) if inbound_mail.find_raw(here.connection, number)]
        assert left == [genuine, *kept[3:]]
        assert quarantine.room(here.connection) == quarantine.Room(2, 2000)
        assert quarantine.shrink(here.connection, budget_octets=2500, deleting={1}) == quarantine.Room(0, 0)
        rows = here.connection.execute(sa.select(tables.inbound_mail.c.id)).scalars()
        assert set(rows) == {genuine, *kept[3:]}, "no more is known of them, for no server has them"


def test_wishes_go_last(database_url: str) -> None:
    with world(database_url) as here:
        wish = mail(here)
        inbound_mail.settle(here.connection, [Understood(wish, Kind.UNSUBSCRIBE, "unsubscribe", "")], now=NOW)
        asked = forged(here, mail=wish, kind=Kind.UNSUBSCRIBE, action=Action.UNSUBSCRIBED)
        others = [mail(here) for _ in range(3)]
        for each in others:
            forged(here, f"{each}@example.org", mail=each)
        known = [Understood(each, Kind.BOUNCE, "Undeliverable", "") for each in others]
        inbound_mail.settle(here.connection, known, now=NOW)
        quarantine.shrink(here.connection, budget_octets=1500, deleting={1})
        assert quarantine.numbers(here.connection, wishes=True) == [asked]
        assert quarantine.numbers(here.connection, wishes=False) == []


def test_what_nobody_accepted_in_time_is_forgotten(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        here.send(here.sending(at=NOW - 20 * DAY), at=NOW - 20 * DAY)
        old = NOW - 15 * DAY
        accept(here, accepted := forged(here, at=old))
        undoing.undo_bounces(here.connection, [accepted], cause=COMMAND, now=NOW)
        stale = mail(here, at=old)
        forged(here, "x@example.org", mail=stale, at=old)
        forged(here, "y@example.org", mail=stale, at=old)
        fresh = forged(here, mail=mail(here))
        before = NOW - 14 * DAY
        assert quarantine.expire(here.connection, before=before, deleting={1}) == 2
        assert quarantine.expire(here.connection, before=before, deleting={1}) == 0
        left = here.connection.execute(sa.select(tables.bounce.c.id).order_by(tables.bounce.c.id)).scalars()
        assert list(left) == [accepted, fresh]
        mails = here.connection.execute(sa.select(tables.inbound_mail.c.id)).scalars()
        assert stale not in set(mails)


def test_a_mail_that_stays_on_its_server_is_remembered(sqlite_url: str) -> None:
    with world(sqlite_url) as here:
        stale = mail(here, at=NOW - 15 * DAY)
        forged(here, mail=stale, at=NOW - 15 * DAY)
        quarantine.expire(here.connection, before=NOW - 14 * DAY, deleting=())
        assert inbound_mail.known(here.connection, 1, ["0"]) == {"0"}
        assert inbound_mail.find_raw(here.connection, stale) is None


@contextmanager
def watched(url: str, **inbound: Any) -> Iterator[tuple[Database, Watch]]:
    with world(url) as here:
        for _ in range(4):
            forged(here, mail=mail(here))
    database = Database(url)
    try:
        yield database, _tidying(database, **inbound)
    finally:
        database.close()


def test_the_daemon_keeps_the_quarantine_small_and_says_so_once(sqlite_url: str) -> None:
    with watched(sqlite_url, quarantine_budget=2000) as (database, watch), capture_logs() as logged:
        for _ in range(3):
            asyncio.run(watch.tidy())
            with database.begin() as connection:
                here = World(connection)
                forged(here, mail=mail(here))
        with database.look() as connection:
            assert quarantine.room(connection) == quarantine.Room(3, 3000)
    assert [(each["event"], each["reports"]) for each in logged] == [("quarantine.overflowed", 2)]


def test_the_daemon_forgets_what_is_too_old(sqlite_url: str) -> None:
    with watched(sqlite_url) as (database, watch), capture_logs() as logged:
        with database.begin() as connection:
            connection.execute(tables.bounce.update().values(at=NOW - 15 * DAY))
        asyncio.run(watch.tidy())
        with database.look() as connection:
            assert quarantine.room(connection) == quarantine.Room(0, 0)
    assert [(each["event"], each["reports"]) for each in logged] == [("quarantine.expired", 4)]


FORGED = """\
Delivered-To: bounces@example.com
From: MAILER-DAEMON@mx.example.net
Subject: Undelivered Mail Returned to Sender
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.net

Final-Recipient: rfc822; victim{number}@example.org
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 User unknown

--b
Content-Type: text/rfc822-headers

Subject: {junk}

--b--
"""


def test_ten_thousand_forged_mails_take_no_more_room_than_they_may_and_nothing_else_goes(
    sqlite_url: str,
) -> None:
    """They come in ten waves; after the second one the file grows no more, and the genuine mail is all there."""
    many, waves = 1000, 10
    with inbox.database_at(sqlite_url) as database:
        watch = _tidying(database, quarantine_budget=many // 2 * 1000)
        genuine = [inbox.MAIL % number for number in range(5)]
        dice = Random(1)
        sizes = []

        async def main() -> None:
            async with inbox.recording(database) as (one, _):
                for wave in range(waves):
                    forgeries = [_forge(dice, wave * many + number) for number in range(many)]
                    inbox.arrive(database, *genuine[wave : wave + 1], *forgeries, prefix=f"{wave}-")
                    await inbox.record_all(one, database)
                    await watch.tidy()
                    sizes.append(_octets_of(database))

        asyncio.run(main())
        with database.look() as connection:
            room = quarantine.room(connection)
            rows = connection.execute(
                sa.select(sa.func.count()).select_from(tables.inbound_mail)
            ).scalar_one()
            changes = connection.execute(sa.select(tables.change)).all()
        kept = inbox.kept(database)
    assert room.octets <= many // 2 * 1000
    assert rows == room.reports + len(genuine)
    assert [mail for mail in kept if mail in genuine] == genuine
    assert changes == []
    assert sizes[-1] <= sizes[1] * 1.1, sizes


def _forge(dice: Random, number: int) -> bytes:
    """Return a report without a token of about a thousand octets, which no compression makes smaller."""
    return FORGED.format(number=number, junk=dice.randbytes(250).hex()).replace("\n", "\r\n").encode()


def _tidying(database: Database, **limits: Any) -> Watch:
    lease = Lease(database, "watching", node_id=NODE)
    return Watch(Parts(database, Guard(), Inbound(**limits), {1}, lease, clock=lambda: NOW))


def _octets_of(database: Database) -> int:
    with database.look() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        return int(pages * connection.exec_driver_sql("PRAGMA page_size").scalar_one())
