"""The arguments of MAIL and RCPT, read into values or into the reply that refuses them.

RFC 5321 §4.1.2, with SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531) and the parameters of DSN
(RFC 3461 §4).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mailbound.model import Reply
from mailbound.simulator import envelope

_PATH = re.compile(r'\s*<((?:"(?:[^"\\]|\\.)*"|[^<>"\s])*)>(?:\s+(\S.*))?\s*')
_SYNTAX = Reply(501, "5.5.4 Syntax error in parameters")
_NEVER = frozenset({"NEVER"})
_OCCASIONS = frozenset({"SUCCESS", "FAILURE", "DELAY"})


@dataclass(frozen=True, slots=True)
class Sender:
    """What MAIL said."""

    address: str
    size_octets: int = 0
    utf8: bool = False
    ret: str = ""
    envid: str = ""


def read_mail(argument: str) -> Sender | Reply:
    """Return what follows `MAIL FROM:`, or the refusal of it."""
    read = _read(argument)
    if isinstance(read, Reply):
        return read
    address, given = read
    ret = given.pop("RET", "").upper()
    envid = envelope.decode_xtext(given.pop("ENVID", ""))
    size = given.pop("SIZE", "0")
    utf8 = "SMTPUTF8" in given
    body = given.pop("BODY", "7BIT").upper()
    if ret not in {"", "FULL", "HDRS"} or envid is None or len(envid) > 100:
        return _SYNTAX
    if not (size.isascii() and size.isdigit()) or len(size) > 20 or body not in {"7BIT", "8BITMIME"}:
        return _SYNTAX
    if set(given) - {"SMTPUTF8", "AUTH"}:
        return _unknown(given)
    if not (address.isascii() or utf8):
        return Reply(553, "5.6.7 A non-ASCII address needs SMTPUTF8")
    return Sender(address, int(size), utf8, ret, envid)


def read_rcpt(argument: str, *, utf8: bool) -> envelope.Recipient | Reply:
    """Return what follows `RCPT TO:`, or the refusal of it."""
    read = _read(argument)
    if isinstance(read, Reply):
        return read
    address, given = read
    if "@" not in address.strip("@"):
        return Reply(501, "5.1.3 Bad recipient address syntax")
    if not (address.isascii() or utf8):
        return Reply(553, "5.6.7 A non-ASCII address needs SMTPUTF8")
    occasions = frozenset(given.pop("NOTIFY").upper().split(",")) if "NOTIFY" in given else None
    original = envelope.decode_xtext(given.pop("ORCPT", ""))
    if occasions == _NEVER:
        occasions = frozenset()
    elif occasions is not None and not occasions <= _OCCASIONS:
        return _SYNTAX
    if original is None or (original and ";" not in original):
        return _SYNTAX
    return _unknown(given) if given else envelope.Recipient(address, occasions, original)


def _read(argument: str) -> tuple[str, dict[str, str]] | Reply:
    """Split a path from its parameters, each of which may stand there once (RFC 3461 §4)."""
    match = _PATH.fullmatch(argument)
    if match is None:
        return Reply(501, "5.5.4 Syntax: an address in angle brackets is wanted")
    given: dict[str, str] = {}
    for parameter in (match[2] or "").split():
        keyword, _, value = parameter.partition("=")
        if keyword.upper() in given:
            return _SYNTAX
        given[keyword.upper()] = value
    return match[1], given


def _unknown(given: dict[str, str]) -> Reply:
    return Reply(555, f"5.5.4 Unsupported parameter: {min(given)}")
