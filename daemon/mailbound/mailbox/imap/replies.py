"""What an IMAP server says, as values, and how we write to it (RFC 3501, RFC 5530). Nothing here does I/O."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mailbound.mailbox import SessionError, Trouble

_TROUBLES = {
    "UNAVAILABLE": Trouble.TEMPORARY,
    "LIMIT": Trouble.TEMPORARY,
    "SERVERBUG": Trouble.TEMPORARY,
    "OVERQUOTA": Trouble.TEMPORARY,
    "INUSE": Trouble.IN_USE,
    "AUTHENTICATIONFAILED": Trouble.CREDENTIALS,
    "AUTHORIZATIONFAILED": Trouble.CREDENTIALS,
    "EXPIRED": Trouble.CREDENTIALS,
    "PRIVACYREQUIRED": Trouble.TLS,
    "CONTACTADMIN": Trouble.PERMANENT,
    "NOPERM": Trouble.PERMANENT,
    "NONEXISTENT": Trouble.PERMANENT,
    "CORRUPTION": Trouble.PERMANENT,
}
_CODE = re.compile(r"\[([A-Z-]+)", re.IGNORECASE)
_VALIDITY = re.compile(rb"\[UIDVALIDITY (\d{1,10})\]", re.IGNORECASE)
_FETCH = re.compile(rb"\d+ FETCH \(", re.IGNORECASE)
_UID = re.compile(rb"\bUID (\d{1,10})\b", re.IGNORECASE)
_SIZE = re.compile(rb"\bRFC822\.SIZE (\d{1,19})\b", re.IGNORECASE)
_QUOTED = re.compile(rb'\bBODY\[\](?:<\d+>)? "((?:[^"\\]|\\.)*)"', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Message:
    """What one FETCH response says of a mail; None for what it does not."""

    uid: int
    size_octets: int | None
    content: bytes | None


def code(text: str) -> str:
    """Return the response code that `text` begins with, in capitals, or "" (RFC 3501 §7.1)."""
    found = _CODE.match(text)
    return found[1].upper() if found else ""


def trouble(text: str, otherwise: Trouble) -> Trouble:
    """Return what a refusal means, `otherwise` if it does not explain itself (RFC 5530 §3)."""
    return _TROUBLES.get(code(text), otherwise)


def readable(line: bytes | bytearray) -> str:
    """Return what a server said, for people; it need not be UTF-8."""
    return bytes(line).decode("utf-8", "replace")


def uid_validity(lines: Iterable[bytes]) -> int:
    """Return the number that stands before all uids of a folder (RFC 3501 §2.3.1.1).

    Raises SessionError if the server gives none: then its uids mean nothing.
    """
    for line in lines:
        if found := _VALIDITY.search(line):
            return int(found[1])
    raise SessionError(Trouble.PROTOCOL, "the server gives no UIDVALIDITY, so its mails have no names")


def uids(lines: Sequence[bytes]) -> list[int]:
    """Return the uids that a SEARCH found, in order; its last line is the server's comment.

    Raises SessionError if something else stands among them.
    """
    words = b" ".join(lines[:-1]).split()
    if not all(word.isdigit() and len(word) <= 10 for word in words):
        raise SessionError(Trouble.PROTOCOL, "what SEARCH found are no uids")
    return sorted(map(int, words))


def messages(lines: Iterable[bytes | bytearray]) -> Iterator[Message]:
    """Yield what FETCH responses say of each mail.

    A server may slip in what nobody asked for, such as the flags of a mail that another session has changed:
    that has no uid, or no content.
    """
    text, literal = b"", None
    for line in lines:
        if isinstance(line, bytearray):
            literal = bytes(line)
        elif _FETCH.match(line):
            yield from _message(text, literal)
            text, literal = line, None
        else:
            text += line
    yield from _message(text, literal)


def _message(text: bytes, literal: bytes | None) -> Iterator[Message]:
    uid, size, quoted = _UID.search(text), _SIZE.search(text), _QUOTED.search(text)
    if literal is None and quoted:
        literal = re.sub(rb"\\(.)", rb"\1", quoted[1])
    if uid:
        yield Message(int(uid[1]), int(size[1]) if size else None, literal)


def uid_set(numbers: Iterable[int]) -> str:
    """Return uids as a set, neighbours joined: `1:3,7` (RFC 3501 §9). It names no other uid."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}:{last}" for first, last in runs)


def quoted(text: str) -> str:
    """Return `text` as a quoted string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def folder(name: str) -> str:
    """Return the name of a folder as it is sent: in modified UTF-7 (RFC 3501 §5.1.3), quoted."""
    parts = re.split(r"([^\x20-\x7e]+)", name)
    parts[::2] = [part.replace("&", "&-") for part in parts[::2]]
    parts[1::2] = [f"&{_base64(part)}-" for part in parts[1::2]]
    return quoted("".join(parts))


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-16-be")).decode().rstrip("=").replace("/", ",")
