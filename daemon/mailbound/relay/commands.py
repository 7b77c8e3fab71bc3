"""The commands of a mail transaction, and what can be known to fail before they are sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mailbound.model import Letter, Outcome, Phase, Reply, Result

HERE = "decided here, the relay was not asked"
"""The `why` of an outcome whose reply we wrote ourselves."""

_WORD = r"[^\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff\"(),:;<>@\[\\\]]+"
_QUOTED = r'"(?:[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"\\]|\\[\x20-\x7e])*"'
_DOMAIN = r"[^\x00-\x2c\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\xa0\u2028\u2029\ud800-\udfff]+"
_LITERAL = r"\[[0-9A-Za-z:.]+\]"
_ADDRESS = re.compile(rf"({_WORD}|{_QUOTED})@({_DOMAIN}|{_LITERAL})")
"""An address that cannot end the angle brackets around it or begin a second command (RFC 5321 §4.1.2)."""

_PLAIN = re.compile(r"[!-*,-<>-~]*")  # what xtext leaves as it is
_NOT_XTEXT = re.compile(rb"[^!-*,-<>-~]")
_NOT_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")


@dataclass(frozen=True, slots=True)
class Extensions:
    """What the relay offers, as its last EHLO said. After HELO it offers nothing (RFC 5321 §2.2)."""

    size: bool = False
    size_limit: int = 0  # octets; 0 if the relay states none
    dsn: bool = False
    pipelining: bool = False
    eight_bit: bool = False
    utf8: bool = False

    @classmethod
    def read(cls, offered: Mapping[str, str]) -> Extensions:
        """Return what is offered by keywords, in lower case, and their parameters."""
        limit = offered.get("size", "").strip()
        return cls(
            size="size" in offered,
            size_limit=int(limit) if limit.isascii() and limit.isdigit() and len(limit) <= 20 else 0,
            dsn="dsn" in offered,
            pipelining="pipelining" in offered,
            eight_bit="8bitmime" in offered,
            utf8="smtputf8" in offered,
        )


def xtext(value: str) -> str:
    """Return `value` as xtext (RFC 3461 §4)."""
    if _PLAIN.fullmatch(value):
        return value
    return _NOT_XTEXT.sub(lambda match: b"+%02X" % match[0][0], value.encode()).decode("ascii")


def original_recipient(address: str) -> str:
    """Return `address` as the value of ORCPT (RFC 3461 §4.2); with letters beyond ASCII by RFC 6533 §3."""
    if address.isascii():
        return f"rfc822;{xtext(address)}"
    return "utf-8;" + _NOT_QCHAR.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", address)


def mail(letter: Letter, body: bytes, extensions: Extensions) -> bytes:
    """Return the MAIL command for a `letter` whose `body` is this, not yet dot-stuffed."""
    line = f"MAIL FROM:<{letter.return_path}>"
    if extensions.size:
        line += f" SIZE={len(body)}"
    if extensions.eight_bit and not body.isascii():
        line += " BODY=8BITMIME"
    if needs_utf8(letter):
        line += " SMTPUTF8"
    if extensions.dsn:
        line += " RET=HDRS"
        if letter.envid:
            line += f" ENVID={xtext(letter.envid)}"
    return line.encode() + b"\r\n"


def rcpt(letter: Letter, extensions: Extensions) -> bytes:
    """Return the RCPT command for `letter`."""
    line = f"RCPT TO:<{letter.recipient}>"
    if extensions.dsn:
        line += " NOTIFY=FAILURE,DELAY"
        original = original_recipient(letter.recipient)
        if len(original) <= 500:  # RFC 3461 §4.2
            line += f" ORCPT={original}"
    return line.encode() + b"\r\n"


def needs_utf8(letter: Letter) -> bool:
    """Return True if the relay must offer SMTPUTF8 for `letter` (RFC 6531 §3.2)."""
    return letter.utf8 or not (letter.return_path.isascii() and letter.recipient.isascii())


def is_safe(address: str) -> bool:
    """Return True if `address` fits a command and nothing but its own place in it (RFC 5321 §4.5.3.1)."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        return False
    local_part, domain = map(_octets, match.groups())
    # A path has at most 256 octets, its angle brackets among them.
    return local_part <= 64 and domain <= 255 and local_part + domain + 3 <= 256


def _octets(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def objection(letter: Letter, body: bytes, extensions: Extensions) -> Outcome | None:
    """Return how the transaction would end for certain, or None if the relay should be asked."""
    if not is_safe(letter.return_path):
        reply = Reply(553, "5.1.7 the return path is no address that SMTP can carry")
        return Outcome(Result.UNTRIED, Phase.MAIL, reply, HERE)  # our fault, not the recipient's
    if not is_safe(letter.recipient):
        return _refused(553, "5.1.3 the recipient is no address that SMTP can carry")
    if not (letter.envid.isascii() and letter.envid.isprintable() and len(xtext(letter.envid)) <= 100):
        reply = Reply(501, "5.5.4 the envelope identifier is not one that SMTP can carry")  # RFC 3461 §4.4
        return Outcome(Result.UNTRIED, Phase.MAIL, reply, HERE)
    if needs_utf8(letter) and not extensions.utf8:
        return _refused(550, "5.6.7 the address or a header needs SMTPUTF8, which the relay does not offer")
    if not extensions.eight_bit and not body.isascii():
        return _refused(554, "5.6.3 the message has 8-bit octets, and the relay does not offer 8BITMIME")
    if 0 < extensions.size_limit < len(body):
        limit = f"{len(body)} octets are more than the {extensions.size_limit} that the relay takes"
        return _refused(552, f"5.3.4 {limit}")
    return None


def _refused(code: int, text: str) -> Outcome:
    return Outcome(Result.REFUSED, Phase.MAIL, Reply(code, text), HERE)
