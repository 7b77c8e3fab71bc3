"""A message and its envelope, as the simulated relay took them (RFC 5321 §2.3.1, RFC 3461 §4)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HEX_PAIR = re.compile(r"\+([0-9A-F]{2})")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")


@dataclass(frozen=True, slots=True)
class Recipient:
    """One recipient with what was asked for it."""

    address: str
    notify: frozenset[str] | None = None  # None: nothing was asked (RFC 3461 §4.1)
    original: str = ""  # ORCPT, decoded: `rfc822;bob@example.com`

    def wants(self, occasion: str) -> bool:
        """Return whether a report on `SUCCESS`, `FAILURE` or `DELAY` is to be sent."""
        return occasion in self.notify if self.notify is not None else occasion != "SUCCESS"


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message that the relay took, for one or more recipients."""

    queue_id: str
    sender: str  # the reverse-path; "" is <>
    recipients: tuple[Recipient, ...]
    content: bytes  # lines end with CRLF, dots are not stuffed
    envid: str = ""  # decoded
    ret: str = ""  # FULL, HDRS, or "" where nothing was asked
    utf8: bool = False
    user: str = ""  # who logged in; "" if nobody did
    secure: bool = False  # it came over TLS

    @property
    def header(self) -> bytes:
        """Return the header block, with the CRLF of its last field, without the empty line."""
        header, _, _ = self.content.partition(b"\r\n\r\n")
        return header.removesuffix(b"\r\n") + b"\r\n"


def decode_xtext(text: str) -> str | None:
    """Return what xtext stands for, or None if it is none (RFC 3461 §4)."""
    if not _XTEXT.fullmatch(text):
        return None
    return _HEX_PAIR.sub(lambda pair: chr(int(pair[1], 16)), text)
