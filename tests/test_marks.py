"""The marks on a mail: where in it stands what its report says."""

from __future__ import annotations

import base64
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mutations
import reading_properties
from mailbound.model import Kind
from mailbound.reading import layout, read
from mailbound.reading.layout import Zone
from mailbound.reading.marks import Mark, Marked, mark

_SEEDS = reading_properties.seeds()
_HEADER = b"Return-Path: <>\nFrom: MAILER-DAEMON@mx.example\nSubject: Undeliverable\n"
_TEXT = "Your message could not be delivered.\n\n<bob@x.example>: 550 5.1.1 Postkasten gibt es nicht: Grüße\n"


def marked(raw: bytes) -> Marked:
    return mark(raw, read(raw))


def shown(raw: bytes, what: Mark) -> list[str]:
    """Return what is marked so, in order."""
    found = marked(raw)
    return [found.lines[span.line].text[span.begin : span.end] for span in found.spans if span.mark is what]


def mail(name: str) -> bytes:
    return (reading_properties.FOLDER / f"{name}.eml").read_bytes()


def check(raw: bytes) -> None:
    """Hold what is true of every mail: no line is lost, and every mark lies within one."""
    found = marked(raw)
    count = raw.count(b"\n") + (not raw.endswith(b"\n"))
    reached = None
    for line in found.lines:
        assert 1 <= line.first <= line.last <= max(count, 1)
        assert reached is None or line.first in {reached[0], reached[1] + 1}, "in order, and none left out"
        assert "\n" not in line.text
        reached = (line.first, line.last)
    assert reached is None or reached[1] == count, "to the end"
    for span in found.spans:
        assert 0 <= span.begin < span.end <= len(found.lines[span.line].text)


# --- every mail --------------------------------------------------------------------------------------------


def test_every_mail_keeps_its_lines_and_every_mark_lies_within_one():
    for raw in _SEEDS:
        check(raw)
        check(raw.replace(b"\r\n", b"\n"))
        check(b"From nobody Mon Mar  2 09:15:01 2026\n" + raw)


@pytest.mark.parametrize("mutation", dict.fromkeys(mutations.MUTATIONS), ids=lambda each: each.__name__)
def test_a_changed_mail_is_marked_as_well(mutation):
    chance = random.Random(mutation.__name__)
    for _ in range(50):
        check(mutation(chance.choice(_SEEDS), chance, _SEEDS))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.binary(max_size=40) | st.sampled_from([*_HEADER.splitlines(True), b"\n", b"--b", b"\r\n"]))
)
def test_no_octets_make_it_raise(pieces):
    check(b"".join(pieces))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(_SEEDS), st.sampled_from(_SEEDS))
def test_the_report_of_another_mail_does_no_harm(raw, other):
    found = mark(raw, read(other))
    for span in found.spans:
        assert 0 <= span.begin < span.end <= len(found.lines[span.line].text)


@pytest.mark.parametrize("path", sorted(reading_properties.FOLDER.glob("*.eml")), ids=lambda path: path.stem)
def test_what_is_understood_is_marked(path):
    raw = path.read_bytes()
    report = read(raw)
    told = "\n".join(line.text for line in marked(raw).lines).lower()
    assert bool(shown(raw, Mark.KIND)) == (report.kind is not Kind.ORDINARY)
    there = [one for one in report.recipients if one.final_recipient.lower() in told]
    assert len(shown(raw, Mark.RECIPIENT)) >= len({one.final_recipient.lower() for one in there})


# --- what is marked ----------------------------------------------------------------------------------------


def test_a_dsn_is_marked_in_its_fields_and_not_in_its_words():
    raw = mail("postfix-user-unknown")
    assert shown(raw, Mark.RECIPIENT) == ["nobody@remote.example"] * 2
    assert shown(raw, Mark.STATUS) == ["failed", "5.1.1", "5.1.1"]
    assert shown(raw, Mark.DIAGNOSTIC)[1] == "rejected: User unknown in virtual mailbox table"
    assert shown(raw, Mark.KIND)[-1] == "Content-Type: message/delivery-status"
    assert {line.part for line in _lines_of(raw, Mark.STATUS)} == {1}


def _lines_of(raw: bytes, what: Mark) -> list[layout.Line]:
    found = marked(raw)
    return [found.lines[span.line] for span in found.spans if span.mark is what]


def test_an_entry_that_the_report_leaves_out_is_not_marked():
    status = (
        b"Reporting-MTA: dns; mx.example\n\n"
        b"Final-Recipient: rfc822; ann@x.example\nAction: pondered\nStatus: 4.0.1\n\n"
        b"Final-Recipient: rfc822; bob@x.example\nAction: failed\nStatus: 5.1.1\n"
    )
    raw = (
        _HEADER
        + b"Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n"
        + status
        + b"\n--b--\n"
    )
    assert shown(raw, Mark.RECIPIENT) == ["bob@x.example"]
    assert shown(raw, Mark.STATUS) == ["failed", "5.1.1"]


def test_words_are_marked_where_they_name_the_recipient_and_nowhere_in_what_is_given_back():
    raw = mail("exim-prose")
    assert shown(raw, Mark.DIAGNOSTIC)[-1] == "retry timeout exceeded"
    assert "550" in shown(raw, Mark.STATUS)
    assert max(line.first for line in _lines_of(raw, Mark.RECIPIENT)) == 17
    assert "A message that you sent could not be delivered to one or more of its" in shown(raw, Mark.KIND)


def test_an_automatic_reply_is_marked_by_the_fields_that_gave_it_away():
    assert shown(mail("vacation"), Mark.KIND) == [
        "Subject: Automatic reply: Spring",
        "Auto-Submitted: auto-replied",
    ]


def test_a_token_is_marked_where_it_counts():
    lines = [line.text.partition(":")[0] for line in _lines_of(mail("postfix-user-unknown"), Mark.TOKEN)]
    assert lines == ["X-Original-To", "Delivered-To", "To", "Original-Envelope-Id", "Message-ID"]


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("8bit", _TEXT.encode()),
        ("quoted-printable", _TEXT.replace("gibt es", "gib=\nt es").replace("ü", "=C3=BC").encode()),
        ("base64", base64.encodebytes(_TEXT.encode())),
    ],
)
def test_an_encoded_text_is_marked_in_what_it_says(encoding, body):
    raw = (
        _HEADER
        + f"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: {encoding}\n\n".encode()
    )
    check(raw + body)
    assert shown(raw + body, Mark.DIAGNOSTIC) == ["550 5.1.1 Postkasten gibt es nicht: Grüße"]
    line = _lines_of(raw + body, Mark.DIAGNOSTIC)[0]
    assert raw.count(b"\n") < line.first <= line.last <= (raw + body).count(b"\n")


def test_a_html_text_is_shown_as_its_text():
    lines = [line.text for line in marked(mail("html-only")).lines if line.zone is not Zone.HEADER]
    assert lines[0] == "[HTML, shown as its text]"
    assert not any("<" in text for text in lines)


def test_what_is_no_text_is_named_and_not_shown():
    raw = _HEADER + b"Content-Type: image/png\nContent-Transfer-Encoding: base64\n\niVBORw0KGgo=\nAAAA\n"
    assert [line.text for line in marked(raw).lines][-1] == "[image/png, 18 octets, base64: not shown]"
    assert (marked(raw).lines[-1].first, marked(raw).lines[-1].last) == (7, 8)
    mess = _HEADER + b"\n" + (bytes(range(128, 160)) + b"\n") * 3
    assert marked(mess).lines[-1] == layout.Line(5, 7, Zone.NOTE, 0, "[96 characters that are no text]")


def test_a_long_diagnostic_is_marked_in_its_telling_lines_only():
    filler = b"".join(b"Line %d of what nobody reads.\n" % number for number in range(20))
    raw = (
        _HEADER
        + b"\nYour message could not be delivered.\n\nbob@x.example\n\n"
        + filler
        + b"Code 550 5.7.1 Spam\n"
    )
    assert "Code 550 5.7.1 Spam" in shown(raw, Mark.DIAGNOSTIC)
    assert not any("nobody reads" in text for text in shown(raw, Mark.DIAGNOSTIC))


@pytest.mark.parametrize(
    "body",
    [b"Hello there\n" * 2_000_000, b"x" * 20_000_000, b"\n" * 20_000_000, b"\0\xff" * 10_000_000],
    ids=["lines", "one line", "empty", "noise"],
)
def test_a_huge_mail_becomes_a_page(body):
    found = marked(_HEADER + b"\n" + body)
    assert sum(len(line.text) for line in found.lines) < 1_000_000
    assert len(found.lines) <= layout.LINES_LIMIT + 10
    assert found.lines[-1].last == 4 + body.count(b"\n") + (not body.endswith(b"\n"))
