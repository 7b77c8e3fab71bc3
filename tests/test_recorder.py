"""Recording: what cannot be written of one mail undoes nothing of the others."""

from __future__ import annotations

import sqlalchemy as sa

from mailbound import classify, tokens
from mailbound.config import Policy
from mailbound.database import erasing, inbound_mail, tables, token_keys
from mailbound.database.inbound_mail import Arrival
from mailbound.inbound import findings, recorder
from mailbound.inbound.findings import Arrived, Said
from mailbound.model import Kind
from mailbound.reading import RecipientReport, Report
from mailbound.tokens import Purpose
from world import NOW, world

_UNWRITABLE = "\ud800"  # half of a character: no database takes it


def test_a_mail_that_cannot_be_recorded_leaves_the_others_alone(database_url: str) -> None:
    with world(database_url) as here:
        arrivals = [Arrival(str(number), b"raw %d" % number, 5, truncated=False) for number in range(3)]
        inbound_mail.keep(here.connection, here.stores["main"], arrivals, now=NOW)
        mails = inbound_mail.take(here.connection, limit=10)
        subjects = ("first", _UNWRITABLE, "third")
        understood = [
            (mail, Said(Kind.ORDINARY, "", subject, "", ()))
            for mail, subject in zip(mails, subjects, strict=True)
        ]
        done = recorder._record(here.connection, understood, limits=Policy(), now=NOW)
        assert [said.subject for _, said, _ in done.recorded] == ["first", "third"]
        ((failed, why),) = done.failed
        assert (failed.id, why.partition(":")[0]) == (mails[1].id, "UnicodeEncodeError")
        states = {row.id: row.state for row in inbound_mail.recent(here.connection)}
        assert states == {mails[0].id: "read", mails[1].id: "new", mails[2].id: "read"}


def test_a_mail_that_failed_twice_is_poison(database_url: str) -> None:
    with world(database_url) as here:
        arrival = Arrival("1", b"raw", 3, truncated=False)
        inbound_mail.keep(here.connection, here.stores["main"], [arrival], now=NOW)
        tries = [inbound_mail.take(here.connection, limit=10) for _ in range(4)]
        assert [[mail.is_poison for mail in taken] for taken in tries] == [[False], [False], [True], []]


def test_what_follows_was_never_tried_before(database_url: str) -> None:
    with world(database_url) as here:
        arrivals = [Arrival(str(number), b"%d" % number, 1, truncated=False) for number in range(4)]
        inbound_mail.keep(here.connection, here.stores["main"], arrivals, now=NOW)
        (first,) = inbound_mail.take(here.connection, limit=1)
        following = inbound_mail.follow(here.connection, after=first.id, limit=2)
        assert [(mail.content, mail.attempts) for mail in following] == [(b"1", 1), (b"2", 1)]
        assert inbound_mail.follow(here.connection, after=first.id, limit=2) == []
        assert [mail.id for mail in inbound_mail.take(here.connection, limit=4)] == [first.id]


def test_what_is_taken_at_once_is_bounded_by_its_size(sqlite_url: str) -> None:
    with world(sqlite_url) as here:
        large = [Arrival(str(number), b"%d" % number, 20 * 2**20, truncated=False) for number in range(3)]
        inbound_mail.keep(here.connection, here.stores["main"], large, now=NOW)
        assert len(inbound_mail.take(here.connection, limit=10)) == 1


def test_what_comes_back_after_an_erasure_leaves_no_name_behind(database_url: str) -> None:
    with world(database_url) as here:
        anna = here.person("anna")
        key = token_keys.signing(here.connection, now=NOW)
        delivery_id = here.send(here.sending())["anna"]
        token = tokens.for_delivery(
            key, Purpose.RETURN_PATH, delivery_id, attempt=1, day=tokens.day_number(NOW)
        )
        erasing.erase(here.connection, anna, who="test", now=NOW)
        arrival = Arrival("1", b"To: anna@example.org", 20, truncated=False)
        inbound_mail.keep(here.connection, here.stores["main"], [arrival], now=NOW)
        (mail,) = inbound_mail.take(here.connection, limit=1)
        report = Report(
            Kind.BOUNCE,
            (RecipientReport("anna@example.org", diagnostic_code="550 no anna here"),),
            delivered_to=(f"bounces+{token}@example.com",),
            subject="About anna",
        )
        arrived = Arrived(mail.id, mail.store_id, mail.fetched_at)
        said = findings.understand(report, arrived, keys={key.id: key}, rules=classify.rules())
        done = recorder._record(here.connection, [(mail, said)], limits=Policy(), now=NOW)
        assert len(done.recorded) == 1
        bounce = here.connection.execute(sa.select(tables.bounce)).one()
        assert (bounce.evidence, bounce.address, bounce.diagnostic) == ("signed", "", "")
        kept = here.connection.execute(sa.select(tables.inbound_mail)).one()
        assert (kept.state, kept.subject) == ("read", "")
        assert inbound_mail.find_raw(here.connection, mail.id) is None
