"""Header fields as octets (RFC 5322, 2047, 2231). What a value cannot say safely is refused, never repaired.

They are made here and not by the `email` package, since several Python versions let a value that looks like an
encoded word become a header field of its own, and encode what must stay as it is (List-Unsubscribe).
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Iterable, Iterator

from mailbound.errors import InputError

_WIDTH = 78  # what a line should have at most, and ...
_LIMIT = 998  # ... what it must (RFC 5322 §2.1.1)
_ENCODED_WORD = 75  # RFC 2047 §2

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~-"
_ATOMS = re.compile(rf"[{_ATEXT}]+(?: [{_ATEXT}]+)*")
_MAILBOX = re.compile(rf"{_ATOMS.pattern} <[.{_ATEXT}]+@[A-Za-z0-9.-]+>")  # most are like this
_WORDS = re.compile(r"[!-~]+(?: [!-~]+)*")
_QUOTED_STRING = r'"(?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*"'
_ADDRESS = re.compile(rf"(?:[.\u00a1-\U0010ffff{_ATEXT}]+|{_QUOTED_STRING})@[A-Za-z0-9.-]+")
_MESSAGE_ID = re.compile(rf"[.{_ATEXT}]+@[A-Za-z0-9.-]+")
_LIST_ID = re.compile(rf"[.{_ATEXT}]+")
_URI = re.compile(r"(?:https|mailto):[!#-;=?-~]+", re.IGNORECASE)
_FIELD = re.compile(rb"[!-9;-~]+: [^\r\n\x00]*(?:\r\n[ \t][^\r\n\x00]+)*\r\n")

# In an encoded word within a phrase these stand for themselves (RFC 2047 §5 (3)); elsewhere more could.
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
_Q = [chr(octet) if octet in _PLAIN else f"={octet:02X}" for octet in range(256)]
_Q[0x20] = "_"
_CONTINUED = ("=8", "=9", "=A", "=B")  # any octet of a character but its first
_NOT_IN_Q = re.compile(r"[^A-Za-z0-9!*+/ -]")
_IN_PARAMETER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,59}")


PLACE = "8" + "9" * 39  # it overlaps with no other of its kind, whatever stands before it
"""Stands for a token, which has as many characters, until the token is known; no token has this digit."""


class MessageFault(InputError):
    """A value cannot stand in a message."""


class Mould:
    """Header fields that are the same in all messages of a run but for a token."""

    def __init__(self, fields: bytes) -> None:
        """Take verified fields with `PLACE` where the token goes."""
        self._around = fields.split(PLACE.encode())

    def fill(self, tokens: Iterable[str]) -> list[bytes]:
        """Return the fields with each of the tokens."""
        return [token.encode().join(self._around) for token in tokens]


def field(name: str, value: str) -> bytes:
    """Return a header field whose value is structured already; it is folded at its spaces.

    What is returned is one field on proper lines; a value that would make it anything else raises MessageFault. This
    is the last line of defence: whatever was overlooked before, no value becomes a field of its own.
    """
    octets = (
        f"{name}: {value}\r\n".encode()
        if len(name) + len(value) + 2 <= _WIDTH
        else _folded(name, value).encode()
    )
    if not _FIELD.fullmatch(octets):
        raise MessageFault(f"{name} came out as {octets!r}, which is no header field")
    if len(octets) > _LIMIT and max(map(len, octets.split(b"\r\n"))) > _LIMIT:
        raise MessageFault(f"{name} came out with a line longer than {_LIMIT} octets")
    return octets


def _folded(name: str, value: str) -> str:
    lines = [f"{name}:"]
    for word in value.split(" "):
        if len(lines[-1]) + 1 + len(word) > _WIDTH and word and lines[-1].strip(" ") not in {"", f"{name}:"}:
            lines.append("")
        lines[-1] += f" {word}"
    return "\r\n".join(lines) + "\r\n"


def text(name: str, value: str) -> bytes:
    """Return a header field of free text, as encoded words if it needs them (RFC 2047)."""
    if len(name) + len(value) + 2 <= _WIDTH and _WORDS.fullmatch(value) and "=?" not in value:
        return f"{name}: {value}\r\n".encode()
    checked(value, name)
    if _is_plain(value) and max(map(len, value.split(" "))) < _WIDTH:
        return field(name, value)
    return field(name, " ".join(_encoded_words(value, used=len(name) + 2)))


def mailbox(name: str, address: str, *, used: int = 0) -> str:
    """Return `name <address>`, or the address alone if the name is empty (RFC 5322 §3.4).

    `used` is how much of the first line is taken. Raises MessageFault.
    """
    if not _ADDRESS.fullmatch(address) or len(address) > 320:
        raise MessageFault(f"{address!r} cannot be written as an address")
    shown = phrase(name, used=used)
    return f"{shown} <{address}>" if shown else address


def recipient(name: str, address: str) -> bytes:
    """Return the To field. Raises MessageFault."""
    if (
        len(name) + len(address) <= _WIDTH - len("To:  <>")
        and _MAILBOX.fullmatch(f"{name} <{address}>")
        and "=?" not in name
    ):
        return f"To: {name} <{address}>\r\n".encode()
    return field("To", mailbox(name, address, used=len("To: ")))


def phrase(value: str, *, used: int = 0) -> str:
    """Return a display name: as it is, quoted or as encoded words (RFC 5322 §3.2.5, RFC 2047 §5).

    Spaces at its ends and further ones between its words are dropped: readers do not agree on them.
    """
    value = " ".join(word for word in checked(value, "name").split(" ") if word)
    if not value or (_ATOMS.fullmatch(value) and "=?" not in value):
        return value
    if not _is_plain(value) or len(value) > _LIMIT // 4:
        return " ".join(_encoded_words(value, used=used))
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def message_id(value: str) -> str:
    """Return a Message-ID or Content-ID in its brackets (RFC 5322 §3.6.4)."""
    if not _MESSAGE_ID.fullmatch(value) or len(value) > 250:
        raise MessageFault(f"{value!r} is no message identifier")
    return f"<{value}>"


def list_id(value: str, name: str) -> str:
    """Return a list's identifier after its name (RFC 2919 §3)."""
    if not _LIST_ID.fullmatch(value) or len(value) > 255:
        raise MessageFault(f"{value!r} is no list identifier")
    return f"{phrase(name, used=9)} <{value}>".lstrip(" ")


def uris(values: Iterable[str]) -> str:
    """Return URIs in brackets, to be tried in this order (RFC 2369 §2)."""
    values = list(values)
    for value in values:
        if not _URI.fullmatch(value) or len(value) > 900:
            raise MessageFault(f"{value!r} is no https or mailto URI of at most 900 characters")
    return ", ".join(f"<{value}>" for value in values)


def filename(value: str) -> str:
    """Return the `filename` parameter of a Content-Disposition, in pieces if it is long (RFC 2231 §3, §4)."""
    if _IN_PARAMETER.fullmatch(value):
        return f'filename="{value}"'
    octets = [chr(octet) if octet in _PLAIN - set(b"!*+/") else f"%{octet:02X}" for octet in value.encode()]
    pieces = ["utf-8''"]
    for octet in octets:
        if len(pieces[-1]) + len(octet) > 50:
            pieces.append("")
        pieces[-1] += octet
    if len(pieces) == 1:
        return f"filename*={pieces[0]}"
    return "; ".join(f"filename*{number}*={piece}" for number, piece in enumerate(pieces))


def checked(value: str, what: str) -> str:
    """Return `value`. Raises MessageFault if a character in it could end a line or cannot be sent."""
    if found := _CONTROL.search(value):
        raise MessageFault(f"{what} holds U+{ord(found[0]):04X}, which no header may hold: {value!r}")
    return value


def _is_plain(value: str) -> bool:
    """Return whether readers will see `value` as it is: no encoded word, no space that folding could lose."""
    return value.isascii() and "=?" not in value and "  " not in value and value == value.strip(" ")


def _encoded_words(value: str, *, used: int) -> Iterator[str]:
    """Yield encoded words of whole characters; base64 where that is shorter."""
    in_q = _NOT_IN_Q.sub(lambda found: _in_q(found[0]), value).replace(" ", "_")
    first = max(min(_ENCODED_WORD, _WIDTH - used - 1), 30)
    if len(in_q) <= len(value.encode()) * 4 / 3 + 4:
        return _q_words(in_q, _room(first))
    return _b_words(value, _room(first) * 3 // 4)


def _room(width: int) -> int:
    """Return how many characters of base64 an encoded word may hold; as many octets of Q are as good."""
    return (width - len("=?utf-8?q??=")) // 4 * 4


def _q_words(in_q: str, room: int) -> Iterator[str]:
    while len(in_q) > room:
        end = room
        if (begun := in_q.rfind("=", end - 2, end)) >= 0:
            end = begun
        while in_q.startswith(_CONTINUED, end):
            end -= len("=80")
        yield f"=?utf-8?q?{in_q[:end]}?="
        in_q, room = in_q[end:], _room(_ENCODED_WORD)
    yield f"=?utf-8?q?{in_q}?="


def _b_words(value: str, room: int) -> Iterator[str]:
    start = taken = 0
    for position, character in enumerate(value):
        size = len(character.encode())
        if taken + size > room:
            yield _as_b(value[start:position])
            start, taken, room = position, 0, _room(_ENCODED_WORD) * 3 // 4
        taken += size
    yield _as_b(value[start:])


@functools.lru_cache(4096)
def _in_q(character: str) -> str:
    return "".join(map(_Q.__getitem__, character.encode()))


def _as_b(value: str) -> str:
    return f"=?utf-8?b?{base64.b64encode(value.encode()).decode()}?="
