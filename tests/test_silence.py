"""Nothing that arrives is ever answered: no mail of any kind makes the daemon say a word to its relay (no loops)."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from box import Box
from ledger_relay import LedgerRelay
from mailbound.database.tables import inbound_mail
from mailbound.model import Kind

MAILS = Path(__file__).parent / "mails"
GENUINE = ["bounce", "full", "delay", "complaint", "autoreply", "unsubscribe"]
"""Local parts of people whose mailbox answers so, to an address of ours with its token."""

BEGGING = """\
From: {sender}
To: bounces@sender.test
Subject: {subject}
Message-ID: <begging-{number}@remote.test>
Disposition-Notification-To: anna@remote.test
Return-Receipt-To: anna@remote.test
X-Confirm-Reading-To: anna@remote.test
{more}
Please confirm that you got this.
"""
LETTERS = [
    ("anna@remote.test", "Where is my parcel?", ""),
    ("anna@remote.test", "unsubscribe", ""),
    ("hello@sender.test", "I come from your own address", ""),
    ("bounces@sender.test", "Undelivered Mail Returned to Sender", "Return-Path: <>\n"),
    ("list-request@remote.test", "Please confirm your subscription", "Auto-Submitted: auto-generated\n"),
    (
        "anna@remote.test",
        "Please confirm your message",
        "X-TMDA-Fingerprint: q\nReply-To: prove@remote.test\n",
    ),
]


def test_nothing_that_arrives_is_answered(tmp_path: Path) -> None:
    with LedgerRelay(tmp_path / "ledger", delay_seconds=0.0) as relay, Box(tmp_path, **relay.settings) as box:
        box.populate({name: f"{name}@remote.test" for name in GENUINE})
        box.schedule("spring")
        box.start()
        box.wait(lambda: box.run_state("spring") == "sent", "the run to be sent")
        relay.call(relay.simulator.quiet())
        box.wait(lambda: len(_kinds(box)) == len(GENUINE), "the answers to be read")
        said, sessions = relay.ledger(), relay.smtp.connections
        assert {address for _, address in said} == {f"{name}@remote.test" for name in GENUINE}
        mails = [path.read_bytes() for path in sorted(MAILS.rglob("*.eml"))]
        for number, (sender, subject, more) in enumerate(LETTERS):
            text = BEGGING.format(sender=sender, subject=subject, more=more, number=number)
            mails.append(text.replace("\n", "\r\n").encode())
        for mail in mails:
            relay.simulator.maildrop.put(mail)
        box.wait(lambda: len(_kinds(box)) == len(GENUINE) + len(mails), "all to be read")
        assert set(_kinds(box)) == set(Kind), "mail of every kind has come"
        assert box.stop() == 0
        assert relay.ledger() == said
        assert relay.smtp.connections == sessions


def _kinds(box: Box) -> list[str]:
    """Return what the mails were that have been read."""
    read = sa.select(inbound_mail.c.kind).where(inbound_mail.c.state == "read")
    return [row.kind for row in box.rows(read)]
