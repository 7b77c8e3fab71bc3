from __future__ import annotations

import pytest

from mailbound import tokens
from mailbound.model import Action, Kind
from mailbound.reading import read

BODY = "\nHello\n"
LEAVE = tokens.for_unsubscribe(tokens.Key(1, b"k"), 7, store=1)


def kind(header: str, body: str = BODY) -> Kind:
    return read(f"From: Bob <bob@x.example>\nTo: bounces@sender.example\n{header}\n{body}".encode()).kind


@pytest.mark.parametrize(
    "header",
    [
        "Subject: x\nAuto-Submitted: auto-replied",
        "Subject: x\nAuto-Submitted: auto-replied (vacation)\nReturn-Path: <>",
        "Subject: x\nX-Autoreply: yes",
        "Subject: x\nX-Autorespond: x",
        "Subject: x\nPrecedence: auto_reply",
        "Subject: Out of Office: x",
        "Subject: Bob is out of the office.",
        "Subject: Automatic reply: x",
        "Subject: RE: Automatic reply: x",
        "Subject: Automatische Antwort: x",
        "Subject: Abwesenheitsnotiz",
        "Subject: =?utf-8?q?R=C3=A9ponse_automatique_:_x?=",
        "Subject: Respuesta automática: x",
        "Subject: Risposta automatica: x",
        "Subject: Afwezig: x",
        "Subject: Автоответ: x",
        "Subject: =?utf-8?b?6Ieq5YuV6L+U5L+h?=",
        "Subject: 自动回复: x",
    ],
)
def test_an_automatic_reply_is_one(header):
    assert kind(header) is Kind.AUTO_REPLY


@pytest.mark.parametrize(
    "header",
    [
        "Subject: Re: Spring",
        "Subject: x\nAuto-Submitted: no",
        "Subject: x\nX-Autoreply: no",
        "Subject: Re: mail to Tina bounces",
        "Subject: Fwd: failure notice",
        "Subject: about the office",
        "Subject: how do I unsubscribe from the other list?",
        "Subject: The delivery failed\nList-Id: <talk.x.example>",
        "",
    ],
)
def test_mail_of_people_is_ordinary(header):
    assert kind(header) is Kind.ORDINARY


@pytest.mark.parametrize(
    "header",
    ["Subject: Please confirm your message", "Subject: x\nX-TMDA-Fingerprint: q", "Subject: [boxbe] x"],
)
def test_a_challenge_is_neither_bounce_nor_wish(header):
    assert kind(header) is Kind.CHALLENGE


@pytest.mark.parametrize(
    "subject", ["unsubscribe", "Unsubscribe!", "Re: unsubscribe", "abmelden", "désinscription"]
)
def test_the_word_alone_asks_for_it(subject):
    report = read(f"From: Bob <bob@x.example>\nSubject: {subject}\n\n".encode())
    assert report.kind is Kind.UNSUBSCRIBE
    assert [(one.final_recipient, one.action) for one in report.recipients] == [
        ("bob@x.example", Action.UNSUBSCRIBED)
    ]


def test_mail_to_an_unsubscribe_address_asks_for_it_whatever_it_says():
    assert kind(f"Subject: hello\nDelivered-To: bounces+{LEAVE}@sender.example") is Kind.UNSUBSCRIBE


def test_an_automatic_mail_to_an_unsubscribe_address_does_not():
    header = f"Subject: hello\nDelivered-To: bounces+{LEAVE}@sender.example\nReturn-Path: <>"
    assert kind(header) is Kind.ORDINARY


@pytest.mark.parametrize(
    ("feedback", "names_one"),
    [
        ("abuse", True),
        ("fraud", True),
        ("opt-out", True),
        ("not-spam", False),
        ("auth-failure", False),
        ("virus", False),
    ],
)
def test_only_a_complaint_names_who_complains(feedback, names_one):
    raw = (
        "From: fbl@x.example\nContent-Type: multipart/report; report-type=feedback-report; boundary=b\n\n"
        f"--b\nContent-Type: message/feedback-report\n\nFeedback-Type: {feedback}\nVersion: 1\n"
        "Original-Rcpt-To: <bob@x.example>\n\n--b--\n"
    )
    report = read(raw.encode())
    assert (report.kind, report.feedback_type) == (Kind.COMPLAINT, feedback)
    assert [one.action for one in report.recipients] == [Action.COMPLAINED] * names_one


def test_a_redacted_complaint_names_nobody():
    raw = (
        "Content-Type: multipart/report; report-type=feedback-report; boundary=b\n\n"
        "--b\nContent-Type: message/feedback-report\n\nOriginal-Rcpt-To: redacted\n\n--b--\n"
    )
    report = read(raw.encode())
    assert (report.feedback_type, report.recipients) == ("abuse", ())


def test_the_places_that_say_whom_a_mail_is_for_come_in_order_of_trust():
    report = read(
        b"To: forged@x.example, Two <two@x.example>\nEnvelope-To: env@x.example\nDelivered-To: real@x.example\n\n"
    )
    assert report.delivered_to == ("real@x.example", "env@x.example", "forged@x.example", "two@x.example")


def test_a_message_id_from_in_reply_to_is_no_returned_one():
    raw = (
        b"From: MAILER-DAEMON@x.example\nIn-Reply-To: <t@x.example>\nReferences: <t@x.example>\n\n"
        b"<bob@x.example>: not delivered\n"
    )
    report = read(raw)
    assert (report.kind, report.returned_message_ids) == (Kind.BOUNCE, ())


def test_a_hint_of_last_resort_says_whose_it_is():
    raw = (
        b"From: MAILER-DAEMON@x.example\nTo: bounces@sender.example\nSubject: Processing Error\n\n"
        b"Intended recipient: bob@x.example\n\nNo luck.\n\n--------RETURNED MAIL FOLLOWS--------\n\n"
    )
    report = read(raw)
    assert (report.kind, report.part) == (Kind.BOUNCE, "flufl:simplematch")
    assert [(one.final_recipient, one.status) for one in report.recipients] == [("bob@x.example", None)]
