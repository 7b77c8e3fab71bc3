"""SMTP replies, read from bytes as they come (RFC 5321 §4.2)."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from mailbound.model import Reply

LINE_LIMIT = 4096
"""The longest line taken from a relay; RFC 5321 §4.5.3.1.5 says 512, and some say more."""

REPLY_LIMIT = 32_768
"""The longest reply, so that a relay which never ends one cannot fill the memory."""


_SHORT = 512  # octets


class Nonsense(Exception):
    """What came is no SMTP reply."""


class ReplyReader:
    """Collects bytes, and gives back replies."""

    __slots__ = ("_code", "_lines", "_rest", "_size")

    def __init__(self) -> None:
        """Begin between two replies."""
        self._rest = b""  # of a line
        self._lines: list[str] = []  # of a reply
        self._code = 0
        self._size = 0

    @property
    def partial(self) -> bool:
        """Return True if a reply has begun and not ended."""
        return bool(self._rest or self._lines)

    def feed(self, data: bytes) -> Iterator[Reply]:
        """Yield each reply that is complete with `data`. Raises Nonsense for what is no reply."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_LIMIT:
            raise Nonsense("the relay sent a line that does not end")
        for line in lines:
            if not self._lines and (reply := _known(line)) is not None:
                yield reply
            elif self._take(line.removesuffix(b"\r")):
                text = "\n".join(self._lines)
                self._lines.clear()
                self._size = 0
                yield Reply(self._code, text)

    def _take(self, line: bytes) -> bool:
        """Add a line, and return True if it was the last of its reply."""
        self._size += len(line)
        if len(line) > LINE_LIMIT or self._size > REPLY_LIMIT:
            raise Nonsense("the relay sent a reply that does not end")
        digits, separator = line[:3], line[3:4]
        if len(digits) != 3 or not digits.isdigit() or separator not in (b"", b" ", b"-"):
            raise Nonsense(f"the relay sent no reply but {readable(line[:60])!r}")
        code = int(digits)
        if self._lines and code != self._code:
            raise Nonsense(f"the relay sent one reply with two codes, {self._code} and {code}")
        self._code = code
        self._lines.append(readable(line[4:]))
        return separator != b"-"


@functools.lru_cache(256)
def _known(line: bytes) -> Reply | None:
    """Return the reply that a line is by itself, or None: relays say the same to most commands."""
    if len(line) > _SHORT or not line[:3].isdigit() or line[3:4] != b" ":
        return None
    return Reply(int(line[:3]), readable(line[4:].removesuffix(b"\r")))


def readable(line: bytes) -> str:
    """Return `line` as text that can be stored and shown anywhere: no controls, no stray surrogates."""
    text = line.decode("utf-8", "replace").strip()
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
