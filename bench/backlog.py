"""A mailbox full of bounces: real reports about deliveries that a database has, in the forms of several mail servers.

Each report is a reply to the letter that the daemon itself would have composed, with genuine tokens where a real relay
brings them back: in the address that the report goes to, in the ENVID, and in the headers of the returned message.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import composing
from mailbound import tokens
from mailbound.model import Letter
from mailbound.simulator import behaviour, reports
from mailbound.simulator.envelope import Envelope, Recipient
from mailbound.simulator.reports.notice import Notice
from mailbound.tokens import Key

_RELAY = "relay.sender.test"


def reports_about(count: int, *, key: Key, day: int) -> Iterator[bytes]:
    """Yield a report about each of the deliveries 1, 2 … `count`; its form goes by the recipient's domain."""
    letters = composing.letters(key, day=day)
    now = datetime.now(UTC)
    for number in range(1, count + 1):
        [letter] = letters(range(number, number + 1))
        yield _report(letter, number, now)


def fill(maildir: Path, mails: Iterator[bytes]) -> int:
    """Let mails fall into a maildir as an MDA would, in order; return their octets on the wire."""
    owner = maildir.stat()
    octets = 0
    for number, raw in enumerate(mails):
        stored = raw.replace(b"\r\n", b"\n")
        # Dovecot's own LMTP writes both sizes into the name, so that LIST need not read the mails.
        name = f"{1_700_000_000 + number // 1000}.M{number:07}P1.bench,S={len(stored)},W={len(raw)}"
        path = maildir / "new" / name
        path.write_bytes(stored)
        shutil.chown(path, owner.st_uid, owner.st_gid)
        octets += len(raw)
    return octets


def _report(letter: Letter, number: int, now: datetime) -> bytes:
    recipient = Recipient(letter.recipient, original=f"rfc822;{letter.recipient}")
    envelope = Envelope(
        queue_id=f"{number:08X}",
        sender=letter.return_path,
        recipients=(recipient,),
        content=letter.content,
        envid=letter.envid,
        ret="HDRS",
    )
    answer = behaviour.behave(letter.recipient, bounce_rate=1.0).answers[0]
    report = reports.write(Notice(answer, envelope, recipient, _RELAY, now))
    assert report is not None
    return report


def today() -> int:
    """Return the day that tokens of now carry."""
    return tokens.day_number(datetime.now(UTC))
