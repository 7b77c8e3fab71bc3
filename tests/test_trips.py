"""A mail that lay in a mailbox says what it said before it came there."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reading_properties
import trips
from mailbound.model import Kind
from mailbound.reading import read
from mailbound.simulator import FORMS
from mailbound.simulator.behaviour import CATALOGUE
from mailbound.simulator.envelope import Envelope, Recipient
from mailbound.simulator.reports import write
from mailbound.simulator.reports.notice import Notice

KEPT = [path.read_bytes() for path in sorted(reading_properties.FOLDER.rglob("*.eml"))]

_local = st.from_regex(r"[a-z]([a-z0-9.+=_'-]{0,20}[a-z0-9])?", fullmatch=True)
_address = st.builds("{}@{}.example".format, _local, st.sampled_from(["x", "from", "mx.far", "xn--jrg-sna"]))
_line = st.sampled_from(
    [
        b"From news@sender.example Mon Mar  2 09:15:01 2026",
        b">From the start we had our doubts.",
        b">>From here on it was quoted twice.",
        b"From <bob@x.example>: 550 5.1.1 User unknown",
        b"From 550 5.1.1 <bob@x.example>",
        b"From what we know, your message could not be delivered to",
        b"From ",
        b"From",
        b"From:",
        b"",
    ]
)
_content = st.lists(_line, max_size=4).map(
    lambda lines: b"Message-ID: <token@sender.example>\r\nSubject: Spring\r\n\r\n" + b"\r\n".join(lines)
)


@st.composite
def _mails(draw: st.DrawFn) -> bytes:
    """Draw a report in one of the forms of the simulator, or one that is kept, with a few lines more in its body."""
    if draw(st.booleans()):
        mail = draw(st.sampled_from(KEPT))
    else:
        name = draw(st.sampled_from([each for each in CATALOGUE if CATALOGUE[each].answers]))
        recipient = Recipient(draw(_address))
        envelope = Envelope("4F2A", "bounces+t@sender.example", (recipient,), draw(_content), envid="e1")
        answer = draw(st.sampled_from(CATALOGUE[name].answers))
        at = datetime(2026, 3, 2, 9, 15, tzinfo=UTC)
        mail = (
            write(Notice(answer, envelope, recipient, "relay.example", at), draw(st.sampled_from([*FORMS])))
            or b""
        )
    end = b"\r\n" if b"\r\n" in mail else b"\n"
    header, between, body = mail.partition(end * 2)
    lines = body.split(end)
    for line in draw(st.lists(_line, max_size=3)):
        lines.insert(draw(st.integers(0, len(lines))), line)
    return header + between + end.join(lines)


@settings(max_examples=300)
@given(_mails(), st.lists(st.sampled_from(trips.TRIPS), min_size=1, max_size=4))
def test_no_way_through_a_mailbox_changes_what_a_mail_says(mail, ways) -> None:
    changed = mail
    for way in ways:
        changed = way(changed)
    assert reading_properties.essence_of(read(changed)) == reading_properties.essence_of(read(mail))


@given(_mails())
def test_what_is_quoted_for_a_mailbox_can_be_had_back(mail) -> None:
    assert trips.unquoted(trips.quoted(mail)) == mail


@pytest.mark.parametrize("path", sorted(reading_properties.FOLDER.glob("*.eml")), ids=lambda path: path.stem)
def test_every_way_changes_the_octets(path) -> None:
    mail = path.read_bytes()
    assert {way.__name__ for way in trips.TRIPS if way(mail) != mail} >= {
        "with_crlf",
        "separated",
        "longer",
        "stored",
    }


def test_a_report_that_gets_its_null_path_only_on_delivery_is_the_same() -> None:
    for mail in reading_properties.simulated():
        report = read(mail)
        bare = b"".join(
            line for line in mail.splitlines(keepends=True) if not line.startswith(b"Return-Path:")
        )
        if report.kind in {Kind.BOUNCE, Kind.DELAY, Kind.SUCCESS}:
            assert reading_properties.essence_of(read(bare)) == reading_properties.essence_of(report)
