"""The body of a message on the wire (RFC 5321 §4.5.2)."""

from __future__ import annotations

import re

TERMINATOR = b".\r\n"
"""The final dot. The body before it ends with CRLF."""

_ANY_LINE_END = re.compile(rb"\r\n|\r|\n")


def with_crlf(content: bytes) -> bytes:
    """Return `content` with CRLF, and nothing but CRLF, at the end of every line.

    A lone CR or LF could look like the end of the message to the next relay, and what follows like commands:
    that is SMTP smuggling. Content that is right already, as it should be, comes back as it is.
    """
    ends = content.count(b"\r\n")
    if not (content.count(b"\n") == content.count(b"\r") == ends):
        content = _ANY_LINE_END.sub(b"\r\n", content)
    return content if content.endswith(b"\r\n") else content + b"\r\n"


def stuffed(content: bytes) -> bytes:
    """Return `content` with one more dot before every line that begins with one. Its lines end with CRLF."""
    if b"\n." in content:
        content = content.replace(b"\n.", b"\n..")
    return b"." + content if content.startswith(b".") else content
