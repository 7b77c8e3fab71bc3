from __future__ import annotations

import doctest
import json
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailbound import classify, correlate, reading
from mailbound.model import Action, Kind
from mailbound.reading import read
from mailbound.reading.report import Report

MAILS = [path.with_suffix(".eml") for path in sorted((Path(__file__).parent / "mails").glob("*.toml"))]
RULES = classify.rules()


def said(report: Report) -> list[dict[str, object]]:
    """Return what a golden file writes of each recipient."""
    found = []
    for one in report.recipients:
        entry: dict[str, object] = {"address": one.final_recipient, "action": str(one.action)}
        if one.original_recipient:
            entry["original"] = one.original_recipient
        entry["status"] = str(one.status or "")
        if one.action in {Action.FAILED, Action.DELAYED}:
            verdict = classify.classify(one, RULES)
            entry |= {"category": str(verdict.category), "permanent": verdict.permanent}
        entry["says"] = one.diagnostic_code
        found.append(entry)
    return found


@pytest.mark.parametrize("path", MAILS, ids=lambda path: path.stem)
def test_a_golden_mail_is_read(path):
    expected = tomllib.loads(path.with_suffix(".toml").read_text("utf-8"))
    report = read(path.read_bytes())
    assert (report.kind, report.part) == (expected["kind"], expected["part"])
    assert report.why
    for name in ("reporting_mta", "original_envelope_id", "feedback_type"):
        assert getattr(report, name) == expected.get(name, ""), name
    assert report.returned_message_ids == tuple(expected.get("returned_message_ids", ()))
    assert [f"{clue.carrier} {clue.token}" for clue in correlate.clues(report)] == expected.get("clues", [])
    recipients = expected.get("recipient", [])
    assert len(report.recipients) == len(recipients)
    for entry, wanted in zip(said(report), recipients, strict=True):
        assert {name: entry.get(name) for name in wanted} == wanted


@pytest.mark.parametrize("path", MAILS, ids=lambda path: path.stem)
def test_crlf_and_lf_read_alike(path):
    raw = path.read_bytes()
    assert read(raw.replace(b"\n", b"\r\n")) == read(raw)


@pytest.mark.parametrize("path", MAILS, ids=lambda path: path.stem)
def test_a_mail_cut_off_anywhere_is_still_read(path):
    raw = path.read_bytes()
    for end in range(0, len(raw), 97):
        assert isinstance(read(raw[:end]).kind, Kind)


def in_a_mailbox(raw: bytes) -> bytes:
    """Return a mail as an mbox file holds it (RFC 4155, with `>` before each line that begins with `From `)."""
    return b"From MAILER-DAEMON Mon Mar  2 09:15:01 2026\n" + re.sub(rb"(?m)^(>*From )", rb">\1", raw) + b"\n"


@pytest.mark.parametrize("path", MAILS, ids=lambda path: path.stem)
def test_a_mail_that_lay_in_a_mailbox_reads_as_before(path):
    raw = path.read_bytes()
    assert read(in_a_mailbox(raw)) == read(raw)


def test_a_returned_message_with_its_separator_survives_a_mailbox():
    raw = HEADER + (
        b"\nIt could not be delivered to\n\n  bob@x.example\n\n--- Original message ---\n"
        b"From news@sender.example  Mon Mar  2 09:00:00 2026\nTo: bob@x.example\nMessage-ID: <a1@sender.example>\n"
    )
    report = read(in_a_mailbox(raw))
    assert report == read(raw)
    assert report.returned_message_ids == ("a1@sender.example",)


def test_the_example_in_the_documentation_is_true():
    assert doctest.testmod(reading).attempted
    assert doctest.testmod(reading).failed == 0


HEADER = b"From: MAILER-DAEMON@x.example\nReturn-Path: <>\nSubject: failure notice\n"


def nested(levels: int) -> bytes:
    return b"".join(
        b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (level, level)
        for level in range(levels)
    )


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(HEADER + nested(1000), id="nested"),
        pytest.param(
            HEADER + b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\n.\n" * 50_000, id="parts"
        ),
        pytest.param(HEADER + b"To: " + b"a@x.example, " * 20_000 + b"\n\nhi\n", id="addressees"),
        pytest.param(HEADER + b"Content-Type: text/plain" + b"; a=b" * 6_000 + b"\n\nhi\n", id="parameters"),
        pytest.param(HEADER + b"Content-Type: text/html\n\n" + b"<style>" * 30_000, id="unclosed HTML"),
        pytest.param(HEADER + b"X: " + b"(" * 90_000 + b"\n\nhi\n", id="parentheses"),
        pytest.param(HEADER + b"\n" + b"a" * 200_000, id="one long line"),
        pytest.param(HEADER + b"\nnot delivered\n" + b"<a@x.example>:\n" * 15_000, id="the same recipient"),
        pytest.param(
            HEADER + b'Content-Type: text/plain; charset="idna"\n\n' + b"\xfc" * 1000, id="idna as a charset"
        ),
        pytest.param(
            HEADER + b'Content-Type: text/plain; charset="zlib"\n\nx\xfc', id="codec that is no charset"
        ),
        pytest.param((HEADER + b"Content-Type: message/rfc822\n\n") * 3000, id="reports within reports"),
        pytest.param(HEADER + b"\nnot delivered\n" + (b"[" * 900 + b"@x\n") * 200, id="brackets"),
        pytest.param(HEADER + b"\nnot delivered" + b"\n" * 250_000, id="empty lines"),
        pytest.param(HEADER + b"\nnot delivered to " + b"a.a@a.a " * 30_000, id="addresses on a line"),
        pytest.param(b"Subject: " + b"re: " * 25_000 + b"- " * 10_000 + b"\n\nhi\n", id="answers to answers"),
        pytest.param(b'\n{"notificationType":' + b"[" * 200_000, id="JSON without an end"),
        pytest.param(
            HEADER + b"\nnot delivered\n" + b"a\n" * 100_000 + b"--- Original message ---\n\nTo: "
            b"a@x.example, " * 6_000,
            id="names without a domain",
        ),
        pytest.param(b"\x00" * 1000, id="NULs"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_hostile_mail_is_read_in_bounded_steps(raw):
    """The limit is far off: what is quadratic here would take minutes, and the run's own limit would end it."""
    assert isinstance(read(raw).kind, Kind)


_piece = st.sampled_from(
    [
        b"\n",
        b"\n\n",
        b"\r\n",
        b" ",
        b"From: MAILER-DAEMON <>",
        b"Return-Path: <>",
        b"Subject: Undelivered Mail Returned to Sender",
        b"Content-Type: multipart/report; report-type=delivery-status; boundary=b",
        b"Content-Type: message/delivery-status",
        b"Content-Type: message/feedback-report",
        b"Content-Type: text/html",
        b"Content-Transfer-Encoding: base64",
        b"Content-Transfer-Encoding: quoted-printable",
        b"--b",
        b"--b--",
        b"Final-Recipient: rfc822; bob@x.example",
        b"Original-Recipient: utf-8; b\\x{F6}b@x.example",
        b"Action: failed",
        b"Status: 5.1.1",
        b"Diagnostic-Code: smtp; 550 5.1.1 no",
        b"X-Failed-Recipients: ann@x.example",
        b"<eve@x.example>: was not delivered",
        b"550 5.1.1 <dan@x.example>... User unknown",
        b"--- Below this line is a copy of the message.",
        b"Message-ID: <a@b>",
        b">>> RCPT TO:<fay@x.example>",
        b"\tgil",
        b"To: gil@x.example, hal@y.example",
        b"Received: from a by b for <ida@x.example>; now",
        b'{"notificationType":"Bounce","mail":{},"bounce":{"bouncedRecipients":[{"emailAddress":"jo@x.example"}]}}',
    ]
)
_octets = st.lists(st.one_of(_piece, st.binary(max_size=8)), max_size=30).map(b"".join)


def _containers(inner):
    names = st.sampled_from(["emailAddress", "headers", "name", "value", "status", "diagnosticCode"])
    return st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4)


@settings(max_examples=300)
@given(_octets)
def test_no_octets_make_it_raise(raw):
    assert isinstance(read(raw), Report)


@settings(max_examples=300)
@given(_octets)
def test_line_ends_change_nothing(raw):
    raw = raw.replace(b"\r", b"")
    assert read(raw.replace(b"\n", b"\r\n")) == read(raw)


@settings(max_examples=300)
@given(st.lists(_piece, max_size=30).map(b"".join))
def test_only_addresses_that_stand_in_the_mail_are_reported(raw):
    text = raw.decode() + raw.decode().replace("\\x{F6}", "ö")  # as it is, and as a `utf-8` address is meant
    if "base64" in text or "quoted-printable" in text:
        return
    for one in read(raw).recipients:
        assert one.original_recipient in text
        local, _, domain = one.final_recipient.rpartition("@")
        assert one.final_recipient in text or (local in text and f"@{domain}" in text)


@settings(max_examples=200)
@given(
    st.recursive(st.none() | st.booleans() | st.text(max_size=9) | st.integers(), _containers, max_leaves=12)
)
def test_no_notification_makes_it_raise(value):
    raw = json.dumps({"notificationType": "Bounce", "mail": value, "bounce": {"bouncedRecipients": value}})
    assert isinstance(read(f"From: a@x.example\n\n{raw}".encode()), Report)
