"""Reports in the forms of mail systems that the golden mails leave out, and ordinary mail that speaks of reports."""

from __future__ import annotations

import itertools

import pytest

from mailbound import tokens
from mailbound.model import Kind
from mailbound.reading import read
from mailbound.reading.phase import Phase, told

RETURNED = (
    "From: news@sender.example\nTo: carl@far.example\nMessage-ID: <a@sender.example>\nSubject: Spring\n"
)
REPORT = (
    "This is the mail system at host mail.isp.example.\n\n"
    "I'm sorry to have to inform you that your message could not\nbe delivered to one or more recipients.\n\n"
    "<bob@far.example>: host mx.far.example[192.0.2.4] said: 550 5.1.1 User unknown (in reply to RCPT TO command)\n"
)


def mail(sender: str, subject: str, body: str, *, extra: str = "", kind: str = "text/plain") -> bytes:
    return (
        f"{extra}From: {sender}\nTo: news@sender.example\nSubject: {subject}\n"
        f"Content-Type: {kind}; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{body}"
    ).encode()


SYSTEM = "Mail Delivery System <MAILER-DAEMON@mail.isp.example>"

FORMS = {
    "a command stands where the address should": (
        mail(
            SYSTEM,
            "Mail delivery failed: returning message to sender",
            "A message that you sent could not be delivered to one or more of its recipients.\n\n"
            "  |/usr/local/bin/deliver\n    (generated from bob@far.example)\n    Child process returned 77\n\n"
            f"------ This is a copy of the message, including all the headers. ------\n\n{RETURNED}",
        ),
        "bob@far.example",
    ),
    "the later address counts where both stand": (
        mail(
            SYSTEM,
            "Mail delivery failed: returning message to sender",
            "A message that you sent could not be delivered to one or more of its recipients.\n\n"
            "  bob@far.example\n    (generated from carl@sender.example)\n    550 5.1.1 unknown\n",
        ),
        "bob@far.example",
    ),
    "a language that no list knows": (
        mail(SYSTEM, "Xabar", "Xat yuborilmadi:\n\n  bob@far.example\n    550 5.1.1 User unknown\n"),
        "bob@far.example",
    ),
    "a sentence that names the only address": (
        mail(SYSTEM, "Письмо", "Ваше письмо не может быть доставлено получателю bob@far.example.\n"),
        "bob@far.example",
    ),
    "cells of a table": (
        mail(
            SYSTEM,
            "退信",
            "<table><tr><td>无法发送到</td><td>bob@far.example</td></tr></table>",
            kind="text/html",
        ),
        "bob@far.example",
    ),
    "Exchange in Dutch": (
        mail(
            "postmaster@far.example",
            "Niet te bezorgen",
            "Bezorging bij de volgende geadresseerden is mislukt:\n\nbob@far.example\n#550 5.1.1 not found ##\n",
        ),
        "bob@far.example",
    ),
    "IMail": (
        mail(
            "Postmaster <postmaster@far.example>",
            "Undeliverable Mail",
            "user mail box full: bob@far.example\n",
        ),
        "bob@far.example",
    ),
}


@pytest.mark.parametrize(("raw", "name"), FORMS.values(), ids=FORMS)
def test_a_form_is_read(raw, name):
    report = read(raw)
    assert report.kind is Kind.BOUNCE
    assert [one.recipient for one in report.recipients] == [name]


PEOPLE = (
    "Alice <alice@corp.example>",
    "Postmaster <postmaster@isp.example>",
    "NDR Radio <hoerer@ndr.example>",
)
SUBJECTS = (
    "Undelivered Mail Returned to Sender",
    "Why was my mail returned to sender?",
    "Your parcel: delivery failed",
)
BODIES = {
    "pasted": f"Can you help? I get this:\n\n{REPORT}",
    "quoted": "Look:\n\n" + "".join(f"> {line}\n" for line in REPORT.splitlines()),
    "forwarded": f"FYI\n\n----- Original Message -----\nFrom: MAILER-DAEMON@isp.example\nTo: a@corp.example\n"
    f"Subject: Undelivered Mail\n\n{REPORT}",
    "members": "New members:\n\nbob@far.example\n\nThese had left before:\n\ncarl@far.example\n",
    "phishing": "Dear user, messages could not be delivered to you. See https://x.example\n\n  boss@far.example\n",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_people_who_speak_of_a_report_write_none(body):
    for sender, subject in itertools.product(PEOPLE, SUBJECTS):
        assert read(mail(sender, subject, body)).kind is Kind.ORDINARY, (sender, subject)


def test_a_parcel_is_no_message():
    body = "We could not bring your parcel to the following address:\n\n  depot@parcel.example\n"
    assert (
        read(mail("Parcels <info@parcel.example>", "Your parcel: delivery failed", body)).kind
        is Kind.ORDINARY
    )


def test_a_reverse_path_of_a_person_speaks_against_a_report():
    body = "Your message could not be delivered:\n\n  bob@far.example\n"
    subject = "Undeliverable mail"
    assert read(mail("gate@corp.example", subject, body)).kind is Kind.ORDINARY
    path = "Return-Path: <gate@corp.example>\n"
    assert read(mail("gate@corp.example", subject, body, extra=path)).kind is Kind.ORDINARY
    assert read(mail("gate@corp.example", subject, body, extra="Return-Path: <>\n")).kind is Kind.BOUNCE


def test_what_comes_to_a_return_path_of_ours_is_by_a_program():
    key = tokens.Key(1, b"k")
    token = tokens.for_delivery(key, tokens.Purpose.RETURN_PATH, 7, attempt=1, day=20000)
    to = f"Return-Path: <gate@corp.example>\nDelivered-To: bounces+{token}@sender.example\n"
    body = "Your message could not be delivered:\n\n  bob@far.example\n"
    assert read(mail("gate@corp.example", "Undeliverable mail", body, extra=to)).kind is Kind.BOUNCE


OWN = "Your message could not be delivered:\n\nbob@far.example: 550 5.1.1 no such user\n\n"
GIVEN_BACK = "--- Original message follows ---\n\nFrom: {}\nTo: bob@far.example\nSubject: Spring\n\nHi\n"


@pytest.mark.parametrize(
    ("intro", "author", "kind"),
    [
        ("", "News <news@sender.example>", Kind.BOUNCE),
        ("", "gate@corp.example", Kind.ORDINARY),
        ("", "carl@other.example", Kind.ORDINARY),
        ("This came back today.\n\n", "News <news@sender.example>", Kind.ORDINARY),
        ("Hallo,\n\n", "News <news@sender.example>", Kind.ORDINARY),
        ("A ticket was opened.\n\n", "News <news@sender.example>", Kind.ORDINARY),
    ],
)
def test_a_message_goes_back_to_its_author_without_a_word_of_anybody(intro, author, kind):
    path = "Return-Path: <gate@corp.example>\n"
    body = f"{intro}{OWN}{GIVEN_BACK.format(author)}"
    assert read(mail("gate@corp.example", "Undeliverable mail", body, extra=path)).kind is kind


@pytest.mark.parametrize(
    ("extra", "body", "kind"),
    [
        ("", "{}", Kind.BOUNCE),
        ("In-Reply-To: <a@x.example>\n", "{}", Kind.BOUNCE),
        ("In-Reply-To: <a@x.example>\n", "Hello,\n\n{}", Kind.ORDINARY),
        ("In-Reply-To: <a@x.example>\n", "{}\n-- \nRolf\n", Kind.ORDINARY),
        ("List-Id: <l.far.example>\n", "{}", Kind.ORDINARY),
        ("X-Mailer: Apple Mail\n", "{}", Kind.ORDINARY),
        ("Return-Path: <rolf@other.example>\n", "{}", Kind.ORDINARY),
        ("Return-Path: <rolf@mx.far.example>\n", "{}", Kind.BOUNCE),
    ],
)
def test_a_postmaster_reports_or_writes_in_person(extra, body, kind):
    assert read(mail("postmaster@far.example", "Your mail", body.format(OWN), extra=extra)).kind is kind


@pytest.mark.parametrize(
    "path", ["bounces@sender.example", "list-admin@lists.sender.example", "news@sender.example"]
)
def test_a_reverse_path_that_was_put_there_on_our_side_says_nothing(path):
    raw = mail("postmaster@far.example", "Undeliverable", OWN, extra=f"Return-Path: <{path}>\n")
    assert read(raw).kind is Kind.BOUNCE


@pytest.mark.parametrize(
    "said",
    [
        "Uw bericht is niet bij alle geadresseerden bezorgd",
        "Ditt meddelande nådde inte alla mottagare",
        "Wiadomość nie dotarła do adresatów",
        "A sua mensagem não chegou aos destinatários",
        "Mesajul nu a putut fi livrat",
        "Ваш лист не вдалося доставити",
    ],
)
def test_what_did_not_arrive_is_told_in_many_languages(said):
    report = read(
        mail("postmaster@far.example", "x", f"{said}:\n\n  bob@far.example\n", extra="Return-Path: <>\n")
    )
    assert [one.final_recipient for one in report.recipients] == ["bob@far.example"]


def test_the_only_address_in_the_words_of_a_postmaster_is_the_recipient():
    body = (
        "Your message with the subject Spring for bob@far.example was not delivered: it was taken for spam.\n"
    )
    report = read(mail("postmaster@far.example", "Message not delivered", body))
    assert [one.final_recipient for one in report.recipients] == ["bob@far.example"]


def test_a_name_before_an_address_of_a_person_makes_no_mail_system():
    body = "Your messages were not delivered:\n\n  invoice@bank.example\n  orders@shop.example\n"
    extra = "Return-Path: <bounce@evil.example>\n"
    sender = '"Mail Delivery System" <noreply@evil.example>'
    raw = mail(sender, "Undelivered Mail Returned to Sender", body, extra=extra)
    assert read(raw).kind is Kind.ORDINARY


def test_an_empty_path_alone_makes_no_report():
    body = "Failed deliveries in the last hour:\n\nbob@far.example 550 5.1.1 user unknown\n"
    raw = mail("monitor@far.example", "Delivery failed", body, extra="Return-Path: <>\n")
    assert read(raw).kind is Kind.ORDINARY


def test_certified_mail_of_italy_says_that_it_failed():
    body = (
        'Avviso di mancata consegna\n\nIl messaggio destinato all\'utente "bob@pec.example" non \u00e8 stato'
        " consegnato:\n5.1.1 - indirizzo non valido\n"
    )
    extra = "Return-Path: <posta-certificata@pec.example>\nX-Ricevuta: errore-consegna\n"
    report = read(mail("posta-certificata@pec.example", "AVVISO DI MANCATA CONSEGNA", body, extra=extra))
    assert report.kind is Kind.BOUNCE
    assert [(one.final_recipient, str(one.status)) for one in report.recipients] == [
        ("bob@pec.example", "5.1.1")
    ]


def test_an_automatic_answer_to_a_subject_about_failures_is_one():
    raw = mail(
        "ann@far.example", "Delivery failed? Ten tips", "Away.\n", extra="Auto-Submitted: auto-replied\n"
    )
    assert read(raw).kind is Kind.AUTO_REPLY


def test_success_in_words_may_speak_of_errors_further_below():
    body = (
        "Your message was successfully delivered to the destination(s)\nlisted below. You may still receive\n"
        "notifications of mail delivery errors from other systems.\n\n<bob@far.example>: 250 2.0.0 Ok\n"
    )
    raw = mail("MAILER-DAEMON@far.example", "Successful Mail Delivery Report", body)
    assert read(raw).kind is Kind.SUCCESS


def test_the_code_of_a_transcript_is_that_of_the_failure():
    body = "Your message was not delivered:\n\n  bob@far.example\n\n<-- 250 2.1.0 Ok\n<-- 550 5.1.1 no such user\n"
    report = read(mail("MDaemon@far.example", "Permanent Delivery Failure", body))
    assert [str(one.status) for one in report.recipients] == ["5.1.1"]


def test_the_code_may_stand_in_a_paragraph_of_its_own():
    body = (
        "Sua mensagem para bob@far.example não foi entregue.\n\nA resposta foi:\n\n550 5.1.1 no such user\n"
    )
    report = read(mail("mailer-daemon@far.example", "Delivery Status Notification (Failure)", body))
    assert [str(one.status) for one in report.recipients] == ["5.1.1"]


def test_a_report_on_tls_is_no_report_on_deliveries():
    raw = b"Return-Path: <>\nFrom: tls@isp.example\nSubject: Report Domain: sender.example\n"
    raw += b'Content-Type: multipart/report; report-type="tlsrpt"; boundary="b"\n\n--b\n\nTLS report\n--b--\n'
    assert read(raw).kind is Kind.ORDINARY


@pytest.mark.parametrize(
    "subject",
    [
        "Automaattinen vastaus: Spring",
        "Otomatik yan\u0131t: Spring",
        "Automatická odpověď: Spring",
        "Fraværsassistent: Spring",
        "자동 회신: Spring",
        "부재 중: Spring",
        "رد تلقائي: Spring",
        "ตอบกลับอัตโนมัติ: Spring",
        "Automatski odgovor: Spring",
        "Автоматична відповідь: Spring",
    ],
)
def test_an_absence_is_known_by_its_subject(subject):
    assert read(mail("ann@far.example", subject, "Gone.\n")).kind is Kind.AUTO_REPLY


@pytest.mark.parametrize(
    ("text", "phase"),
    [
        ("550 unknown (in reply to rcpt to command)", Phase.RCPT),
        ("554 spam (in reply to end of data command)", Phase.END),
        ("smtp error from remote mail server after rcpt to:<bob@far.example>:", Phase.RCPT),
        ("smtp error from remote mail server after initial connection:", Phase.CONNECT),
        ("smtp error from remote server for mail from command, host: mx", Phase.MAIL),
        (">>> data\n<<< 552 too big", Phase.DATA),
        ("550 5.1.1 not found\n [rcpt_to]", Phase.RCPT),
        ("550 your mail was refused after a look at it", None),
    ],
)
def test_the_phase_of_a_refusal_is_read(text, phase):
    assert told(text) == phase


def test_a_report_carries_the_phase_that_its_words_tell():
    (one,) = read(mail(SYSTEM, "Undelivered Mail Returned to Sender", REPORT)).recipients
    assert one.phase is Phase.RCPT
