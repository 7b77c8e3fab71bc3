from __future__ import annotations

import base64
import quopri

import pytest

from mailbound.model import Action, Kind
from mailbound.reading import dsn, read

HEADER = """\
Return-Path: <>
From: MAILER-DAEMON@mta.example
To: bounces@sender.example
Subject: Undelivered Mail Returned to Sender
MIME-Version: 1.0
"""
REPORT = 'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\n'
BLOCK = "Final-Recipient: rfc822; bob@x.example\nAction: failed\nStatus: 5.1.1\n"


def mail(
    status: str, *, header=REPORT, kind="message/delivery-status", words="It failed.", encoding=""
) -> bytes:
    extra = f"Content-Transfer-Encoding: {encoding}\n" if encoding else ""
    return (
        f"{HEADER}{header}\n--b\nContent-Type: text/plain\n\n{words}\n"
        f"--b\nContent-Type: {kind}\n{extra}\n{status}\n--b--\n"
    ).encode()


def only(raw: bytes):
    [found] = read(raw).recipients
    return found


@pytest.mark.parametrize(
    "status",
    [
        pytest.param(f"Reporting-MTA: dns; mta\n\n{BLOCK}", id="as it should be"),
        pytest.param(f"Reporting-MTA: dns; mta\n\n\n\n{BLOCK}\n\n", id="several empty lines"),
        pytest.param(f"Reporting-MTA: dns; mta\n{BLOCK}", id="no empty line"),
        pytest.param(f"{BLOCK}", id="no fields of the message"),
        pytest.param(f"reporting-mta: dns; mta\n\n{BLOCK.upper()}", id="upper case"),
        pytest.param(f"Reporting-MTA: dns; mta\n\n{BLOCK.replace(': ', ' :   ')}", id="blanks around colons"),
        pytest.param(f"Reporting-MTA: dns; mta\n\n{BLOCK.replace('; ', ';' + chr(10) + ' ')}", id="folded"),
        pytest.param(BLOCK.replace("Action", "\nAction"), id="an empty line in the middle"),
        pytest.param(BLOCK.replace("failed", "Failed (bad address)"), id="comment at the action"),
        pytest.param(BLOCK.replace("5.1.1", "5.1.1 (see 4.2.2)"), id="comment at the status"),
        pytest.param(
            BLOCK.replace("Status: 5.1.1", "Status: 5.0.0\nDiagnostic-Code: smtp; 550 5.1.1 no"),
            id="bare status",
        ),
        pytest.param(
            BLOCK.replace("Status: 5.1.1\n", "Diagnostic-Code: smtp; 550-5.1.1 a\n 550 5.1.1 b\n"),
            id="no status",
        ),
    ],
)
def test_a_delivery_status_is_read_in_all_its_shapes(status):
    found = only(mail(status))
    assert found.final_recipient.lower() == "bob@x.example"
    assert (found.action, str(found.status)) == (Action.FAILED, "5.1.1")


@pytest.mark.parametrize(
    "field",
    [
        "rfc822; bob@x.example",
        "RFC822;bob@x.example",
        "rfc822; <bob@x.example>",
        "rfc822; bob@x.example (Bob)",
        "bob@x.example",
        "smtp; bob@x.example",
        "rfc822; bob+40x.example",
        'rfc822; "Bob" <bob@x.example>',
    ],
)
def test_a_recipient_is_found_in_its_field(field):
    assert dsn.recipient_address(field) == "bob@x.example"


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("utf-8; böb@x.example", "böb@x.example"),
        ("utf-8; b\\x{F6}b@x.example", "böb@x.example"),
        ("utf-8; b\\x{F6}b@x.example (Bob)", "böb@x.example"),
        ("rfc822; bounce+bob=x.example@y.example", "bounce+bob=x.example@y.example"),
        ('rfc822; "a b"@x.example', '"a b"@x.example'),
        ("utf-8; \\x{D800}a@x.example", "a@x.example"),
        ("rfc822; ", ""),
        ("", ""),
    ],
)
def test_an_unusual_address_survives(field, expected):
    assert dsn.recipient_address(field) == expected


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable"])
def test_a_transfer_encoding_on_the_status_part_is_undone(encoding):
    text = BLOCK.replace("bob", "bob=1").encode()
    status = base64.encodebytes(text) if encoding == "base64" else quopri.encodestring(text)
    assert only(mail(status.decode(), encoding=encoding)).final_recipient == "bob=1@x.example"


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        ("failed", Kind.BOUNCE),
        ("error", Kind.BOUNCE),
        ("delayed", Kind.DELAY),
        ("delivered", Kind.SUCCESS),
        ("relayed", Kind.SUCCESS),
        ("expanded", Kind.SUCCESS),
    ],
)
def test_the_action_decides_the_kind(action, kind):
    assert read(mail(BLOCK.replace("failed", action))).kind is kind


def test_an_unknown_action_names_nobody():
    assert read(mail(BLOCK.replace("failed", "vanished"))).recipients == ()


def test_several_recipients_keep_their_own_actions():
    second = BLOCK.replace("bob", "ann").replace("failed", "delayed").replace("5.1.1", "4.2.0")
    found = read(mail(f"{BLOCK}\n{second}")).recipients
    assert [(one.final_recipient[:3], one.action) for one in found] == [
        ("bob", Action.FAILED),
        ("ann", Action.DELAYED),
    ]


def test_every_field_is_kept():
    found = only(
        mail(
            "Final-Recipient: rfc822; target@y.example\nOriginal-Recipient: rfc822;bob@x.example\nAction: failed\n"
            "Status: 5.2.1\nRemote-MTA: dns; mx.y.example\nDiagnostic-Code: smtp; 550 5.2.1\n  disabled\n"
            "Last-Attempt-Date: Mon, 2 Mar 2026 09:15:01 +0000\nFinal-Log-Id: 4F2A\n"
        )
    )
    assert found.recipient == "bob@x.example"
    assert (found.final_recipient, found.remote_mta, found.final_log_id) == (
        "target@y.example",
        "mx.y.example",
        "4F2A",
    )
    assert (found.diagnostic_type, found.diagnostic_code) == ("smtp", "550 5.2.1 disabled")
    assert found.last_attempt_date.startswith("Mon")


def test_a_missing_diagnostic_is_taken_from_the_words():
    found = only(
        mail(BLOCK.replace("5.1.1", "5.0.0"), words="bob@x.example: 552 5.2.2 full\nann@x.example: 550 no")
    )
    assert (str(found.status), found.diagnostic_code) == ("5.2.2", "552 5.2.2 full")


def test_a_list_footer_around_a_report_does_not_hide_it():
    inner = mail(BLOCK).decode().partition("\n\n")
    wrapped = (
        f'{HEADER}Content-Type: multipart/mixed; boundary="w"\n\n--w\n{REPORT}\n{inner[2]}\n'
        "--w\nContent-Type: text/plain\n\nThe list\n--w--\n"
    )
    assert only(wrapped.encode()).final_recipient == "bob@x.example"


def test_a_report_that_lost_its_structure_is_read_from_the_text():
    raw = f"{HEADER}\nIt failed.\n\nReporting-MTA: dns; mta\n\n{BLOCK}"
    assert only(raw.encode()).final_recipient == "bob@x.example"


def test_fields_in_the_returned_message_are_not_read():
    raw = (
        f"{HEADER}\n<ann@x.example>: 550 5.1.1 no\n\n--- Below this line is a copy of the message.\n\n{BLOCK}"
    )
    assert only(raw.encode()).final_recipient == "ann@x.example"


def test_raw_eight_bit_survives_in_a_status_part():
    found = only(mail(BLOCK.replace("bob", "böb"), kind="message/global-delivery-status"))
    assert found.final_recipient == "böb@x.example"


def test_a_report_whose_recipients_were_lost_still_says_which_message_it_was():
    report = read(mail("Reporting-MTA: dns; mta.example\nOriginal-Envelope-Id: e1\n"))
    assert (report.kind, report.recipients) == (Kind.BOUNCE, ())
    assert (report.reporting_mta, report.original_envelope_id) == ("mta.example", "e1")


def test_a_report_that_a_person_forwards_part_by_part_is_no_report():
    raw = mail(BLOCK, header='Content-Type: multipart/mixed; boundary="b"\n').decode()
    raw = raw.replace("Return-Path: <>", "Return-Path: <ann@y.example>").replace("MAILER-DAEMON@mta", "ann@y")
    raw = raw.replace("Subject: ", "Subject: Fwd: ")
    assert read(raw.encode()).kind is Kind.ORDINARY


def test_a_route_without_its_end_yields_to_the_words():
    found = only(
        mail(BLOCK.replace("bob@", "@"), words="It was not delivered:\n\n<bob@x.example>\n  550 5.1.1 no")
    )
    assert (found.final_recipient, str(found.status)) == ("bob@x.example", "5.1.1")
