"""Reports as qmail writes them: prose alone (the qmail-send bounce message format), and of failures only."""

from __future__ import annotations

from mailbound.simulator.reports import mime
from mailbound.simulator.reports.notice import Notice


def write(notice: Notice) -> bytes | None:
    """Return the report, or None, since it tells nobody of a delay or a success."""
    if notice.action != "failed":
        return None
    returned = f"Return-Path: <{notice.to}>\r\n".encode() + (
        notice.envelope.content if notice.envelope.ret == "FULL" else notice.envelope.header
    )
    prose = mime.text(
        f"Hi. This is the qmail-send program at {notice.relay}.\n"
        f"I could not bring your message to the address below.\n"
        f"This error is permanent, so I have stopped trying. Sorry that it ended so.\n\n"
        f"<{notice.address}>:\n{_reason(notice)}\n\n"
        f"--- Below this line is a copy of the message.\n"
    )
    header = [
        *mime.delivered(notice, notice.relay),
        ("Date", notice.date),
        ("From", f"MAILER-DAEMON@{notice.relay}"),
        ("To", notice.to),
        ("Subject", "failure notice"),
        ("Message-ID", f"<{notice.key}.qmail@{notice.relay}>"),
    ]
    return mime.mail(header, prose + b"\r\n" + returned)


def _reason(notice: Notice) -> str:
    if notice.remote:
        said = f"Remote host said: {notice.saying}"
        return f"192.0.2.80 does not like recipient.\n{said}\nGiving up on 192.0.2.80."
    return f"Sorry, {notice.saying} (#{notice.status})"
