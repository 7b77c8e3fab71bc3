"""Putting mails together octet by octet, since what real servers write is seldom what a library would."""

from __future__ import annotations

import textwrap

from mailbound.simulator.reports.notice import Notice

Fields = list[tuple[str, str]]


def fields(pairs: Fields) -> bytes:
    """Return a block of fields without its empty line; those without a value are left out."""
    return "".join(f"{name}: {value}\r\n" for name, value in pairs if value).encode()


def mail(header: Fields, body: bytes) -> bytes:
    """Return a whole mail."""
    return fields(header) + b"\r\n" + body


def part(kind: str, body: bytes, header: Fields | None = None) -> bytes:
    """Return one part of a multipart mail, with its type first."""
    return mail([("Content-Type", kind), *(header or [])], body)


def multipart(boundary: str, parts: list[bytes], preamble: str = "") -> bytes:
    """Return the body of a multipart mail (RFC 2046 §5.1.1)."""
    opening = f"--{boundary}\r\n".encode()
    joined = b"".join(opening + one + b"\r\n" for one in parts)
    return preamble.encode() + joined + f"--{boundary}--\r\n".encode()


def text(prose: str) -> bytes:
    """Return prose as lines that end with CRLF; the indentation that all lines share goes."""
    return textwrap.dedent(prose).strip("\n").replace("\n", "\r\n").encode() + b"\r\n"


def encoding(body: bytes) -> str:
    """Return the transfer encoding that a body needs which is not encoded (RFC 2045 §6.2)."""
    return "7bit" if body.isascii() else "8bit"


def typed(kind: str, value: str) -> str:
    """Return `type; value` (RFC 3464 §2.1.2), or "" where there is no value."""
    return f"{kind}; {value}" if value else ""


def delivered(notice: Notice, by: str) -> Fields:
    """Return the fields that the last server puts on top when it delivers a report into its mailbox."""
    return [
        ("Return-Path", "<>"),
        ("X-Original-To", notice.to),
        ("Delivered-To", notice.to),
        ("Received", received(notice, notice.to, by)),
    ]


def received(notice: Notice, to: str, by: str) -> str:
    """Return how the report came to the relay (RFC 5321 §4.4)."""
    origin = f"from {by} ({by} [192.0.2.80])\r\n\tby {notice.relay} with ESMTP"
    return f"{origin} id {notice.key[:10].upper()}\r\n\tfor <{to}>; {notice.date}"
