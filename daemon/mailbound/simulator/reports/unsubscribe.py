"""A mail that asks to be left alone, sent where List-Unsubscribe says (RFC 2369 §3.2)."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, unquote, urlsplit

from mailbound.simulator.reports import mime
from mailbound.simulator.reports.notice import Notice

_MAILTO = re.compile(r"<(mailto:[^>\s]+)>", re.IGNORECASE)


def write(notice: Notice) -> bytes | None:
    """Return the mail, or None if the message does not say where to write to."""
    where = _MAILTO.search(notice.field("list-unsubscribe"))
    if where is None:
        return None
    link = urlsplit(where[1])
    wishes = {name.lower(): values[0] for name, values in parse_qs(link.query.replace("+", "%2B")).items()}
    to = unquote(link.path)
    host = f"mx.{notice.domain}"
    header = [
        ("Return-Path", f"<{notice.address}>"),
        ("X-Original-To", to),
        ("Delivered-To", to),
        ("Received", mime.received(notice, to, host)),
        ("From", f"<{notice.address}>"),
        ("To", f"<{to}>"),
        ("Subject", _one_line(wishes.get("subject", "unsubscribe"))),
        ("Date", notice.date),
        ("Message-ID", f"<{notice.key}@{host}>"),
        ("MIME-Version", "1.0"),
        ("Content-Type", "text/plain; charset=utf-8"),
    ]
    return mime.mail(header, mime.text(wishes.get("body", "unsubscribe")))


def _one_line(text: str) -> str:
    return " ".join(text.split())
