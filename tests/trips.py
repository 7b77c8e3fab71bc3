"""What a mail goes through in a mailbox: its octets change, what it says does not."""

from __future__ import annotations

import re
from collections.abc import Callable

from mailbound.reading import structure

_SEPARATOR = b"From MAILER-DAEMON Mon Mar  2 09:15:01 2026"

# What Dovecot and its delivery agent add, each on a line of its own.
_STORED = (
    b"X-UID: 41",
    b"Status: RO",
    b"X-Status: A",
    b"X-Keywords: seen",
    b"Content-Length: 2107",
    b"Lines: 77",
)
# To a domain that no mail speaks of: whom a mail is for may tell what it is, and that is no change of its octets.
_DELIVERED = (
    b"Delivered-To: <news@house-of-nobody-else.example>",
    b"Received: from mx.example by box.example; 2 Mar 2026 09:15:01 +0000",
)


def with_crlf(raw: bytes) -> bytes:
    """Return the mail as POP3 and IMAP send it. One with a bare CR has no such form and stays as it is."""
    return raw if b"\r" in raw else raw.replace(b"\n", b"\r\n")


def with_lf(raw: bytes) -> bytes:
    """Return the mail as a file holds it. One in which CR stands before CR has no such form and stays as it is."""
    return raw if b"\r\r" in raw else raw.replace(b"\r\n", b"\n")


def separated(raw: bytes) -> bytes:
    """Return the mail with the line that comes before it in an mbox file (RFC 4155)."""
    return _SEPARATOR + _end(raw) + raw if _begins_with_field(raw) else raw


def longer(raw: bytes) -> bytes:
    """Return the mail with the empty line that comes behind it in an mbox file."""
    return raw + _end(raw)


def quoted(raw: bytes) -> bytes:
    """Return the mail with a `>` before each line of its body that begins with `From `; few readers take it away."""
    header, end, body = raw.partition(_end(raw) * 2)
    return header + end + re.sub(rb"(?m)^(>*From )", rb">\1", body)


def unquoted(raw: bytes) -> bytes:
    """Return the mail with one mark fewer: what was quoted by its sender already was not meant to lose it."""
    header, end, body = raw.partition(_end(raw) * 2)
    return header + end + re.sub(rb"(?m)^>(>*From )", rb"\1", body)


def stored(raw: bytes) -> bytes:
    """Return the mail with the fields that a mailbox keeps its own books in."""
    return _with_fields(raw, _STORED)


def delivered(raw: bytes) -> bytes:
    """Return the mail with what a delivery agent writes before it: its reverse-path once more, and whom it is for."""
    path = structure.parse(raw).headers.get("return-path")
    known = (b"Return-Path: " + path.encode(),) if re.fullmatch(r"<[!-;=?-~]*>", path) else ()
    return _with_fields(raw, (*known, *_DELIVERED))


EXACT: tuple[Callable[[bytes], bytes], ...] = (with_crlf, with_lf, separated)
TRIPS = (*EXACT, longer, quoted, unquoted, stored, delivered)


def _with_fields(raw: bytes, fields: tuple[bytes, ...]) -> bytes:
    return b"".join(field + _end(raw) for field in fields) + raw if _begins_with_field(raw) else raw


def _begins_with_field(raw: bytes) -> bool:
    return re.match(rb"[!-9;-~]+[ \t]*:", raw) is not None


def _end(raw: bytes) -> bytes:
    return b"\r\n" if b"\r\n" in raw else b"\n"
