"""What a report has to say, before it takes the form of any one mail server."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime

from mailbound.model import Kind
from mailbound.simulator import behaviour
from mailbound.simulator.behaviour import Answer
from mailbound.simulator.envelope import Envelope, Recipient

_LIFETIME = timedelta(days=5)  # of a message in the queue of a relay
_ACTIONS = {Kind.BOUNCE: "failed", Kind.DELAY: "delayed", Kind.SUCCESS: "delivered"}


@dataclass(frozen=True, slots=True)
class Notice:
    """One answer to one recipient's message."""

    answer: Answer
    envelope: Envelope
    recipient: Recipient
    relay: str  # the host name of the simulated relay
    at: datetime

    @property
    def to(self) -> str:
        """Return the address that the report goes to: the return path."""
        return self.envelope.sender

    @property
    def address(self) -> str:
        """Return the address that the report is about."""
        return self.recipient.address

    @property
    def domain(self) -> str:
        """Return its domain."""
        return self.address.rpartition("@")[2]

    @property
    def remote(self) -> str:
        """Return the host that refused the message, or "" if none was reached."""
        return f"mx.{self.domain}" if self.answer.reply.code else ""

    @property
    def origin(self) -> str:
        """Return the domain that reports where a recipient's own site does: if it was reached."""
        return self.domain if self.answer.reply.code else self.relay

    @property
    def status(self) -> str:
        """Return the enhanced status code (RFC 3463)."""
        return self.answer.status

    @property
    def action(self) -> str:
        """Return the action field of a delivery report (RFC 3464 §2.3.3)."""
        return _ACTIONS[self.answer.kind]

    @property
    def saying(self) -> str:
        """Return the remote host's reply, or our own words where there was none; on one line."""
        reply = self.answer.reply
        text = behaviour.fill(reply.text, self.address)
        return f"{reply.code} {text}" if reply.code else text

    @property
    def original(self) -> str:
        """Return ORCPT as it was given, or "" (RFC 3461 §4.2)."""
        return self.recipient.original

    @property
    def date(self) -> str:
        """Return when the report is written (RFC 5322 §3.3)."""
        return format_datetime(self.at)

    @property
    def until(self) -> str:
        """Return when a delayed message will be given up."""
        return format_datetime(self.at + _LIFETIME)

    @property
    def key(self) -> str:
        """Return some letters that only this report has, for its Message-ID and boundaries."""
        told = f"{self.envelope.queue_id} {self.address} {self.answer} {self.at}"
        return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()

    @property
    def returned(self) -> tuple[str, bytes]:
        """Return the type and the octets of what comes back of the message (RFC 3461 §4.3, RFC 6533 §4)."""
        glob = "global" if self.envelope.utf8 else "rfc822"
        if self.envelope.ret == "FULL" and self.answer.kind is Kind.BOUNCE:
            return f"message/{glob}", self.envelope.content
        return (
            "message/global-headers" if self.envelope.utf8 else "text/rfc822-headers"
        ), self.envelope.header

    def field(self, name: str) -> str:
        """Return a field of the message on one line, or "" if it has none."""
        unfolded = re.sub(r"\r\n(?=[ \t])", "", self.envelope.header.decode("utf-8", "replace"))
        for line in unfolded.split("\r\n"):
            if line.lower().startswith(f"{name}:"):
                return " ".join(line.partition(":")[2].split())
        return ""
