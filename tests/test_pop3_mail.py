"""POP3 against a real Dovecot: what is pipelined comes in order and goes when it is kept, and 50 MB take no memory."""

from __future__ import annotations

import asyncio
import functools
import tracemalloc

import inbox
from mailbound import reading
from mailbound.mailbox import Fetched, Mailbox, pop3
from servers.mailnet import PASSWORD, MailNet

_REPORT = (
    b"From: MAILER-DAEMON@mx.remote.test\r\n"
    b"To: bounces@sender.test\r\n"
    b"Subject: Undelivered Mail Returned to Sender\r\n"
    b'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n'
    b"\r\n"
    b"--b\r\n"
    b"Content-Type: message/delivery-status\r\n"
    b"\r\n"
    b"Reporting-MTA: dns; mx.remote.test\r\n"
    b"\r\n"
    b"Final-Recipient: rfc822; nobody@remote.test\r\n"
    b"Action: failed\r\n"
    b"Status: 5.1.1\r\n"
    b"\r\n"
    b"--b\r\n"
    b"Content-Type: message/rfc822\r\n"
    b"\r\n"
    b"Subject: a film\r\n"
    b"\r\n"
)


async def _open(net: MailNet, user: str) -> Mailbox:
    return await pop3.open(
        host="localhost",
        port=net.ports["pop3s"],
        ca_file=net.ca,
        username=user,
        password=PASSWORD,
    )


def test_a_report_of_50_mb_is_read_from_its_beginning(mailnet: MailNet) -> None:
    user = "film@sender.test"
    large = _REPORT + (b"x" * 76 + b"\r\n") * 670_000
    for mail in (inbox.MAIL % 1, large, inbox.MAIL % 2):
        mailnet.deliver(user, mail)
    size = len(large)
    del large, mail

    async def fetch() -> list[Fetched]:
        mailbox = await _open(mailnet, user)
        fetched = [mail async for mail in mailbox.fetch(await mailbox.list())]
        await mailbox.close(commit=False)
        return fetched

    tracemalloc.start()
    try:
        first, report, last = asyncio.run(fetch())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000
    assert (first.content, last.content) == (inbox.MAIL % 1, inbox.MAIL % 2)
    assert (report.truncated, report.item.size_octets) == (True, size)
    (about,) = reading.read(report.content).recipients
    assert (about.final_recipient, str(about.status)) == ("nobody@remote.test", "5.1.1")


def test_what_is_pipelined_is_kept_in_order_and_then_let_go(mailnet: MailNet, sqlite_url: str) -> None:
    user = "pipelined@sender.test"
    mails = [inbox.MAIL % number + b".\r\n..\r\n" * (number % 7) for number in range(300)]
    for mail in mails:
        mailnet.deliver(user, mail)

    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            assert not await inbox.fetcher_of(database, functools.partial(_open, mailnet, user)).fetch()
            assert inbox.kept(database) == mails

    asyncio.run(main())
    assert mailnet.mails(user) == []
