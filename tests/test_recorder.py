"""Recording: what cannot be written of one mail undoes nothing of the others."""

from __future__ import annotations

from mailbound import classify
from mailbound.config import Policy
from mailbound.database import inbound_mail
from mailbound.database.inbound_mail import Arrival
from mailbound.inbound import recorder
from mailbound.model import Kind
from mailbound.reading import Report
from world import NOW, world

_UNWRITABLE = "\ud800"  # half of a character: no database takes it


def test_a_mail_that_cannot_be_recorded_leaves_the_others_alone(database_url: str) -> None:
    with world(database_url) as here:
        arrivals = [Arrival(str(number), b"raw %d" % number, 5, truncated=False) for number in range(3)]
        inbound_mail.keep(here.connection, here.stores["main"], arrivals, now=NOW)
        mails = inbound_mail.take(here.connection, limit=10)
        subjects = ("first", _UNWRITABLE, "third")
        reports = [
            (mail, Report(Kind.ORDINARY, subject=subject))
            for mail, subject in zip(mails, subjects, strict=True)
        ]
        done = recorder._record(
            here.connection, reports, keys={}, rules=classify.rules(), limits=Policy(), now=NOW
        )
        assert [report.subject for _, report, _ in done.recorded] == ["first", "third"]
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


def test_what_is_taken_at_once_is_bounded_by_its_size(sqlite_url: str) -> None:
    with world(sqlite_url) as here:
        large = [Arrival(str(number), b"%d" % number, 20 * 2**20, truncated=False) for number in range(3)]
        inbound_mail.keep(here.connection, here.stores["main"], large, now=NOW)
        assert len(inbound_mail.take(here.connection, limit=10)) == 1
