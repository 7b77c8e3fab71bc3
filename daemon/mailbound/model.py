"""The values that pass between the layers. They are frozen and touch nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mailbound.status import StatusCode


class Fault(StrEnum):
    """Whose fault a failure is. Only `ADDRESS` and `MAILBOX` speak about the recipient."""

    ADDRESS = "address"
    MAILBOX = "mailbox"
    SENDER = "sender"
    MESSAGE = "message"
    PATH = "path"
    UNCLEAR = "unclear"


class Category(StrEnum):
    """What a report or an SMTP reply means."""

    NO_SUCH_USER = "no-such-user"
    NO_SUCH_DOMAIN = "no-such-domain"
    DISABLED = "disabled"
    MOVED = "moved"

    MAILBOX_FULL = "mailbox-full"
    MAILBOX_SIZE = "mailbox-size"  # the mailbox takes no message of this size (RFC 3463 X.2.3)

    BLOCKED = "blocked"
    REPUTATION = "reputation"
    AUTHENTICATION = "authentication"  # SPF, DKIM, DMARC, a missing PTR record
    POLICY = "policy"
    RATE = "rate"

    CONTENT = "content"
    VIRUS = "virus"
    TOO_LARGE = "too-large"

    GREYLISTED = "greylisted"
    NETWORK = "network"
    SYSTEM = "system"
    EXPIRED = "expired"

    UNCLEAR = "unclear"

    @property
    def fault(self) -> Fault:
        """Return whose fault a failure of this category is."""
        return _FAULTS[self]


_FAULTS = {
    Category.NO_SUCH_USER: Fault.ADDRESS,
    Category.NO_SUCH_DOMAIN: Fault.ADDRESS,
    Category.DISABLED: Fault.ADDRESS,
    Category.MOVED: Fault.ADDRESS,
    Category.MAILBOX_FULL: Fault.MAILBOX,
    Category.MAILBOX_SIZE: Fault.MAILBOX,
    Category.BLOCKED: Fault.SENDER,
    Category.REPUTATION: Fault.SENDER,
    Category.AUTHENTICATION: Fault.SENDER,
    Category.POLICY: Fault.SENDER,
    Category.RATE: Fault.SENDER,
    Category.CONTENT: Fault.MESSAGE,
    Category.VIRUS: Fault.MESSAGE,
    Category.TOO_LARGE: Fault.MESSAGE,
    Category.GREYLISTED: Fault.PATH,
    Category.NETWORK: Fault.PATH,
    Category.SYSTEM: Fault.PATH,
    Category.EXPIRED: Fault.PATH,
    Category.UNCLEAR: Fault.UNCLEAR,
}


class Kind(StrEnum):
    """What sort of mail came to the inbound account."""

    BOUNCE = "bounce"
    DELAY = "delay"
    SUCCESS = "success"  # delivered, relayed or expanded (RFC 3464 §2.3.3)
    COMPLAINT = "complaint"  # a feedback report (RFC 5965)
    AUTO_REPLY = "auto-reply"  # RFC 3834
    DISPOSITION = "disposition"  # RFC 8098
    CHALLENGE = "challenge"
    UNSUBSCRIBE = "unsubscribe"
    ORDINARY = "ordinary"
    UNRECOGNISED = "unrecognised"  # looks like a report, but nothing could be read from it


class Evidence(StrEnum):
    """How we know which delivery a verdict speaks of."""

    DIRECT = "direct"  # the reply of our own relay
    SIGNED = "signed"  # our token verifies
    UNSIGNED = "unsigned"


class Action(StrEnum):
    """What happened to the message for one recipient (RFC 3464 §2.3.3), or what its reader did."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"
    COMPLAINED = "complained"
    UNSUBSCRIBED = "unsubscribed"


class RecipientStatus(StrEnum):
    """Whether an address can be mailed."""

    DELIVERABLE = "deliverable"
    PROBATION = "probation"
    SUSPENDED = "suspended"
    UNDELIVERABLE = "undeliverable"


class Source(StrEnum):
    """Who said that a recipient wants mail, or does not."""

    IMPORT = "import"
    USER = "user"
    UNSUBSCRIBE = "unsubscribe"
    HARD_BOUNCE = "hard_bounce"
    COMPLAINT = "complaint"
    OPERATOR = "operator"


class Disposition(StrEnum):
    """What became of a bounce."""

    APPLIED = "applied"  # it changed something
    NOTED = "noted"  # it counts in the history and in reports
    HELD = "held"  # it waits for an operator, since its run was halted
    QUARANTINED = "quarantined"  # nothing shows that it is genuine
    UNDONE = "undone"


class Reply(NamedTuple):
    """An SMTP reply: its code and its text, lines joined by a newline (RFC 5321 §4.2)."""

    code: int
    text: str

    def __str__(self) -> str:
        """Return the reply on one line."""
        return f"{self.code} {' '.join(self.text.split())}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a report or a reply means, and the rule that said so."""

    category: Category
    permanent: bool
    status: StatusCode | None
    rule: str

    @property
    def fault(self) -> Fault:
        """Return whose fault it is."""
        return self.category.fault


class Letter(NamedTuple):
    """One message to one recipient, ready for the relay."""

    delivery_id: int
    attempt: int
    return_path: str
    recipient: str
    envid: str
    content: bytes  # lines end with CRLF, dots are not stuffed
    utf8: bool = False  # an address or a header needs SMTPUTF8 (RFC 6531)
    clean: bool = (
        False  # no line of the content begins with a dot or ends with anything but CRLF: that is certain
    )


class Phase(StrEnum):
    """Where in a session a reply came, or did not come."""

    CONNECT = "connect"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"
    FINAL_DOT = "final-dot"
    RSET = "rset"
    QUIT = "quit"


class Result(StrEnum):
    """How one mail transaction ended."""

    ACCEPTED = "accepted"  # 2yz to the final dot: the relay took responsibility
    REFUSED = "refused"  # 5yz about this recipient or this message
    DEFERRED = "deferred"  # 4yz about this recipient or this message
    UNKNOWN = "unknown"  # no reply to the final dot: the relay may hold the message
    WITHDRAWN = "withdrawn"  # the mark was refused, so the final dot was never sent
    UNTRIED = "untried"  # the relay's fault: no recipient is touched, no attempt is counted


class Outcome(NamedTuple):
    """How one mail transaction ended, where, and with which reply (None if there was none)."""

    result: Result
    phase: Phase
    reply: Reply | None = None
    why: str = ""  # for people, where there is no reply
