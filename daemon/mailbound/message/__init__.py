"""The octets of one message to one recipient (RFC 5322, MIME).

What is the same for all messages of a store or a template is made once: `Sender` and `enclose`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from typing import Self

from mailbound.message import headers, parts
from mailbound.message.headers import MessageFault
from mailbound.template import Rendered, Template

__all__ = ["Enclosures", "Mailbox", "MessageFault", "Sender", "Unsubscribe", "compose", "enclose"]


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address with the name that is shown for it."""

    address: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who a store's messages come from. Raises MessageFault if that cannot be written."""

    from_: Mailbox
    sender: Mailbox | None
    """Who is responsible for sending, where that is not `from_` (RFC 5322 §3.6.2)."""
    reply_to: Mailbox | None
    list_id: str
    list_name: str = ""
    feedback_id: str = ""
    _fields: tuple[bytes, list[bytes]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Write the fields that are the same in all its messages."""
        written = [headers.field("From", _mailbox(self.from_, len("From: ")))]
        names = [b"From"]
        if self.sender:
            written.append(headers.field("Sender", _mailbox(self.sender, len("Sender: "))))
            names.append(b"Sender")
        if self.reply_to:
            written.append(headers.field("Reply-To", _mailbox(self.reply_to, len("Reply-To: "))))
            names.append(b"Reply-To")
        written.append(headers.field("List-Id", headers.list_id(self.list_id, self.list_name)))
        names.append(b"List-Id")
        if self.feedback_id:
            written.append(headers.field("Feedback-ID", _ascii(self.feedback_id, "Feedback-ID")))
            names.append(b"Feedback-ID")
        block = headers.verify(b"".join(written), names)
        object.__setattr__(self, "_fields", (block, names))

    @classmethod
    def of_store(cls, *, name: str, own: str | None, inbound: str, outbound: str, list_id: str) -> Self:
        """Return the sender of a store: `own` is the `from` that it sets, if it does.

        Without one it is the inbound account's address, else that address is responsible for sending.
        """
        return cls(
            from_=Mailbox(own or inbound, name),
            sender=Mailbox(inbound) if own and own != inbound else None,
            reply_to=Mailbox(outbound),
            list_id=list_id,
            list_name=name,
        )


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """How the recipient leaves: a mailto URI, and an https URI for one click (RFC 2369, 8058)."""

    mailto: str
    https: str | None = None


@dataclass(frozen=True, slots=True)
class Enclosures:
    """A template's images and attachments, encoded."""

    inline: tuple[bytes, ...] = ()
    attachments: tuple[bytes, ...] = ()


def enclose(template: Template) -> Enclosures:
    """Return what all messages of `template` carry. Raises MessageFault for a name that cannot be written."""
    return Enclosures(
        tuple(parts.file(file.name, file.content, file.content_id) for file in template.inline),
        tuple(parts.file(file.name, file.content, None) for file in template.attachments),
    )


_CONSTANT = (
    b"Auto-Submitted: auto-generated\r\n"  # RFC 3834 §5: nobody's vacation notice answers it
    b"Precedence: bulk\r\n"
    b"X-Auto-Response-Suppress: OOF, AutoReply\r\n"
    b"MIME-Version: 1.0\r\n"
)
_CONSTANT_NAMES = [b"Auto-Submitted", b"Precedence", b"X-Auto-Response-Suppress", b"MIME-Version"]


def compose(
    sender: Sender,
    to: Mailbox,
    rendered: Rendered,
    enclosures: Enclosures,
    *,
    message_id: str,
    date: datetime,
    unsubscribe: Unsubscribe,
) -> bytes:
    """Return the message, its lines ended by CRLF. Raises MessageFault if a value cannot stand in it.

    `message_id` is the same at each attempt; `date` is aware, the time of submission (RFC 5322 §3.6.1).
    """
    fields, names = sender._fields
    links = [unsubscribe.https, unsubscribe.mailto] if unsubscribe.https else [unsubscribe.mailto]
    block = [
        headers.field("Date", format_datetime(date)),
        fields,
        headers.field("To", _mailbox(to, len("To: "))),
        headers.text("Subject", rendered.subject),
        headers.field("Message-ID", headers.message_id(message_id)),
        headers.field("List-Unsubscribe", headers.uris(links)),
    ]
    names = [b"Date", *names, b"To", b"Subject", b"Message-ID", b"List-Unsubscribe"]
    if unsubscribe.https:
        block.append(b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n")
        names.append(b"List-Unsubscribe-Post")
    block.append(_CONSTANT)
    header = headers.verify(b"".join(block), names + _CONSTANT_NAMES)
    return header + parts.body(rendered.text, rendered.html, enclosures.inline, enclosures.attachments)


def _mailbox(mailbox: Mailbox, used: int) -> str:
    return headers.mailbox(mailbox.name, mailbox.address, used=used)


def _ascii(value: str, what: str) -> str:
    if not value.isascii() or " " in value:
        raise MessageFault(f"{what} takes ASCII without spaces: {value!r}")
    return headers.checked(value, what)
