"""The mails that the simulator sends back."""

import asyncio
import email
import email.policy
import re

import pytest
from flufl.bounce import all_failures

from mailbound.simulator import FORMS, Simulator
from mailbound.simulator.reports import form_of

MAIL = (
    b"Message-ID: <token@example.net>\r\nSubject: Spring\r\n offers\r\nFrom: Shop <shop@example.net>\r\n"
    b"List-Unsubscribe: <https://example.net/u>,\r\n <mailto:bounces+unsub@example.net?subject=out%20now>\r\n"
    b"\r\n.first\r\nlast\r\n"
)
SENDER = "bounces+tok@example.net"


def answers(recipient, *, content=MAIL, sender=SENDER, mail="", rcpt="", **options):
    """Return the octets of all mails that come back for one message."""
    stuffed = content.replace(b"\r\n.", b"\r\n..")
    octets = (
        f"EHLO client.test\r\nMAIL FROM:<{sender}>{mail}\r\nRCPT TO:<{recipient}>{rcpt}\r\nDATA\r\n".encode()
        + stuffed
        + b".\r\nQUIT\r\n"
    )

    async def run():
        async with Simulator(**{"delay_seconds": 0} | options) as simulator:
            reader, writer = await asyncio.open_connection("127.0.0.1", simulator.smtp_port)
            writer.write(octets)
            assert b"queued as" in await reader.read()
            writer.close()
            await simulator.quiet()
            assert simulator.reports == len(simulator.maildrop)
            return [content for _, content in simulator.maildrop.messages()]

    return asyncio.run(run())


def read(octets):
    """Return a mail as a parser sees it, after a look at what any parser forgives."""
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", octets)
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert [part.defects for part in message.walk()] == [[] for _ in message.walk()]
    return message


def status_of(message):
    """Return the fields of the delivery report: those of the message and those of the recipient."""
    (part,) = (part for part in message.walk() if part.get_content_type() == "message/delivery-status")
    about_message, about_recipient = (group for group in part.get_payload() if group.keys())
    return about_message, about_recipient


DSN_FORMS = [form for form in FORMS if form != "qmail"]


@pytest.mark.parametrize("form", FORMS)
def test_every_report_has_the_marks_of_its_delivery(form):
    (octets,) = answers("bounce@x.test", form=form)
    message = read(octets)
    assert message["Return-Path"] == "<>"
    assert message["X-Original-To"] == message["Delivered-To"] == SENDER
    assert SENDER in message["To"]
    assert all(message[name] for name in ("From", "Date", "Subject", "Message-ID", "Received"))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_a_bounce_to_others_too(form):
    (octets,) = answers("bounce+5.1.1-1@x.test", form=form)
    temporary, permanent = all_failures(email.message_from_bytes(octets))
    assert (temporary, permanent) == (set(), {b"bounce+5.1.1-1@x.test"})


@pytest.mark.parametrize("form", DSN_FORMS)
@pytest.mark.parametrize(
    ("recipient", "action"),
    [("full@x.test", "failed"), ("delay@x.test", "delayed"), ("success@x.test", "delivered")],
)
def test_a_delivery_report_says_what_happened_to_whom(form, recipient, action):
    (octets,) = answers(recipient, form=form, rcpt=" NOTIFY=SUCCESS,FAILURE,DELAY")
    about_message, about_recipient = status_of(read(octets))
    assert about_message["Reporting-MTA"]
    assert about_recipient["Final-Recipient"].lower().replace(" ", "") == f"rfc822;{recipient}"
    assert about_recipient["Action"].replace("error", "failed") == action
    assert about_recipient["Status"][0] == {"failed": "5", "delayed": "4", "delivered": "2"}[action]


@pytest.mark.parametrize("form", FORMS)
def test_the_reason_stands_in_every_form(form):
    (octets,) = answers("full@x.test", form=form)
    assert b"5.2.2" in octets
    assert b"ailbox is full" in octets


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ret", ["FULL", "HDRS"])
def test_what_comes_back_of_the_message_is_what_was_asked(form, ret):
    (octets,) = answers("bounce@x.test", form=form, mail=f" RET={ret}")
    assert b"Message-ID: <token@example.net>\r\n" in octets
    assert (b".first\r\nlast\r\n" in octets) == (ret == "FULL")


@pytest.mark.parametrize("form", ["postfix", "sendmail", "exim", "exchange"])
def test_envid_and_orcpt_come_back_decoded(form):
    (octets,) = answers("full@x.test", form=form, mail=" ENVID=e+3D1", rcpt=" ORCPT=rfc822;full+2Ba@x.test")
    about_message, about_recipient = status_of(read(octets))
    assert about_message["Original-Envelope-Id"] == "e=1"
    assert about_recipient["Original-Recipient"] == "rfc822;full+a@x.test"


def test_postfix_writes_an_international_report_for_an_international_message():
    (octets,) = answers("full@bücher.test", form="postfix", mail=" SMTPUTF8")
    assert b"\r\nContent-Type: message/global-delivery-status\r\n" in octets
    assert "\r\nFinal-Recipient: utf-8; full@bücher.test\r\n".encode() in octets
    assert b"\r\nContent-Type: message/global-headers\r\n" in octets


def test_exim_gives_no_status_of_its_own():
    (octets,) = answers("full@x.test", form="exim")
    message = read(octets)
    assert status_of(message)[1]["Status"] == "5.0.0"
    assert message["X-Failed-Recipients"] == "full@x.test"


def test_opensmtpd_does_not_say_that_it_is_a_report():
    (octets,) = answers("full@x.test", form="opensmtpd")
    message = read(octets)
    assert message.get_content_type() == "multipart/mixed"
    assert message["Auto-Submitted"] is None
    assert status_of(message)[1]["Diagnostic-Code"] is None


def test_qmail_writes_prose_alone():
    (octets,) = answers("full@x.test", form="qmail")
    message = read(octets)
    assert message.get_content_type() == "text/plain"
    assert message["MIME-Version"] is None


@pytest.mark.parametrize("form", FORMS)
def test_a_domain_that_was_not_found_does_not_report_itself(form):
    (octets,) = answers("no-such-domain@x.test", form=form)
    message = read(octets)
    assert "x.test" not in message["From"]
    assert "Remote-MTA" not in octets.decode()


def test_what_a_form_has_no_words_for_is_said_by_the_relay():
    (octets,) = answers("delay@x.test", form="qmail")
    assert status_of(read(octets))[1]["Action"] == "delayed"


def test_a_domain_always_reports_in_the_same_form_and_domains_differ():
    domains = [f"d{number}.test" for number in range(100)]
    assert {form_of(domain) for domain in domains} == set(FORMS)
    assert [form_of(domain.upper()) for domain in domains] == [form_of(domain) for domain in domains]


@pytest.mark.parametrize("form", FORMS)
def test_a_subject_that_breaks_lines_breaks_none_in_the_report(form):
    (octets,) = answers("bounce@x.test", form=form, content=b"Subject: a\nb\rc\r\n\r\nx\r\n")
    header = octets.partition(b"\r\n\r\n")[0]
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", header)


# When a report is sent


@pytest.mark.parametrize(
    ("recipient", "rcpt", "count"),
    [
        ("bob@x.test", "", 0),
        ("bob@x.test", " NOTIFY=SUCCESS,FAILURE,DELAY", 0),
        ("bounce@x.test", "", 1),
        ("bounce@x.test", " NOTIFY=FAILURE", 1),
        ("bounce@x.test", " NOTIFY=NEVER", 0),
        ("bounce@x.test", " NOTIFY=SUCCESS,DELAY", 0),
        ("delay@x.test", "", 1),
        ("delay@x.test", " NOTIFY=FAILURE", 0),
        ("delay-fail@x.test", " NOTIFY=FAILURE", 1),
        ("delay-fail@x.test", "", 2),
        ("success@x.test", "", 0),
        ("success@x.test", " NOTIFY=SUCCESS", 1),
        ("complaint@x.test", " NOTIFY=NEVER", 1),
        ("autoreply@x.test", " NOTIFY=NEVER", 1),
        ("unsubscribe@x.test", " NOTIFY=NEVER", 1),
    ],
)
def test_so_many_reports_are_sent_as_were_asked_for(recipient, rcpt, count):
    assert len(answers(recipient, rcpt=rcpt)) == count


@pytest.mark.parametrize("recipient", ["bounce@x.test", "complaint@x.test", "autoreply@x.test"])
def test_nothing_is_sent_to_the_null_sender(recipient):
    assert answers(recipient, sender="") == []


def test_a_delay_is_told_before_the_failure():
    actions = [
        status_of(read(octets))[1]["Action"] for octets in answers("delay-fail@x.test", form="postfix")
    ]
    assert actions == ["delayed", "failed"]


def test_stopping_forgets_reports_that_are_still_to_come():
    async def run():
        simulator = Simulator(delay_seconds=3600)
        await simulator.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.smtp_port)
        writer.write(
            b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<bounce@x.test>\r\nDATA\r\n" + b"x\r\n.\r\nQUIT\r\n"
        )
        await reader.read()
        writer.close()
        before = simulator.pending
        await simulator.stop()
        await simulator.quiet()
        return before, simulator.pending, simulator.reports

    assert asyncio.run(run()) == (1, 0, 0)


# Mails that are no delivery reports


def test_a_complaint_is_a_feedback_report_with_the_whole_message():
    (octets,) = answers("complaint-1@x.test")
    message = read(octets)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "feedback-report"
    types = [part.get_content_type() for part in message.iter_parts()]
    assert types == ["text/plain", "message/feedback-report", "message/rfc822"]
    fields = octets.partition(b"message/feedback-report\r\n\r\n")[2]
    assert fields.startswith(b"Feedback-Type: abuse\r\nUser-Agent: ")
    assert b"Original-Rcpt-To: <complaint-1@x.test>\r\n" in fields
    assert MAIL in octets


def test_an_automatic_answer_says_that_it_is_one():
    (octets,) = answers("autoreply@x.test")
    message = read(octets)
    assert message["Auto-Submitted"].startswith("auto-replied")
    assert message["In-Reply-To"] == "<token@example.net>"
    assert message["Subject"] == "Auto: Spring offers"
    assert (message["Return-Path"], message["To"]) == ("<>", SENDER)


def test_who_unsubscribes_writes_where_the_message_says():
    (octets,) = answers("unsubscribe@x.test")
    message = read(octets)
    assert message["To"] == "bounces+unsub@example.net"
    assert message["Delivered-To"] == "bounces+unsub@example.net"
    assert (message["From"], message["Return-Path"]) == ("unsubscribe@x.test", "<unsubscribe@x.test>")
    assert message["Subject"] == "out now"


@pytest.mark.parametrize(
    "field", [b"", b"List-Unsubscribe: <https://example.net/u>\r\n"], ids=["none", "only https"]
)
def test_who_cannot_unsubscribe_by_mail_does_not(field):
    assert answers("unsubscribe@x.test", content=b"Message-ID: <a@b>\r\n" + field + b"\r\nx\r\n") == []


@pytest.mark.parametrize(
    "content", [b"", b"\r\n", b"no header at all\r\n", "Subject: ä\r\n\r\nö\r\n".encode()]
)
@pytest.mark.parametrize("recipient", ["bounce@x.test", "complaint@x.test", "autoreply@x.test"])
@pytest.mark.parametrize("form", FORMS)
def test_a_strange_message_is_reported_all_the_same(content, recipient, form):
    assert len(answers(recipient, content=content, form=form)) == 1
