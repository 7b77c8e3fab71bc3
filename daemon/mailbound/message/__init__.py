"""The octets of one message to one recipient (RFC 5322, MIME).

What is the same for all messages of a store or a template is made once: `Sender` and `enclose`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from itertools import repeat
from typing import NamedTuple, Self

from mailbound.message import headers, parts
from mailbound.message.headers import PLACE, MessageFault, Mould
from mailbound.message.text import Encoded, Text
from mailbound.template import Template
from mailbound.template.sheet import Sheet

__all__ = [
    "PLACE",
    "Enclosures",
    "Mailbox",
    "MessageFault",
    "Mould",
    "Sender",
    "compose",
    "enclose",
    "message_id",
    "unsubscribe",
]


class Mailbox(NamedTuple):
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
    _fields: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Write the fields that are the same in all its messages."""
        written = [headers.field("From", _mailbox(self.from_, len("From: ")))]
        if self.sender:
            written.append(headers.field("Sender", _mailbox(self.sender, len("Sender: "))))
        if self.reply_to:
            written.append(headers.field("Reply-To", _mailbox(self.reply_to, len("Reply-To: "))))
        written.append(headers.field("List-Id", headers.list_id(self.list_id, self.list_name)))
        if self.feedback_id:
            written.append(headers.field("Feedback-ID", _ascii(self.feedback_id, "Feedback-ID")))
        object.__setattr__(self, "_fields", b"".join(written))

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


def message_id(value: str) -> Mould:
    """Return the Message-ID field. Raises MessageFault."""
    return Mould(headers.field("Message-ID", headers.message_id(value)))


def unsubscribe(mailto: str, https: str | None = None) -> Mould:
    """Return how the recipient leaves: a mailto URI, and an https URI for one click (RFC 2369, 8058).

    Raises MessageFault for what is no such URI.
    """
    fields = headers.field("List-Unsubscribe", headers.uris([https, mailto] if https else [mailto]))
    return Mould(fields + b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" if https else fields)


@dataclass(frozen=True, slots=True)
class Enclosures:
    """What all messages of a template carry, encoded: its texts, images and attachments."""

    plain: Text = field(default_factory=lambda: Text("plain"))
    html: Text = field(default_factory=lambda: Text("html"))
    inline: tuple[bytes, ...] = ()
    attachments: tuple[bytes, ...] = ()


def enclose(template: Template) -> Enclosures:
    """Return what all messages of `template` carry. Raises MessageFault for what cannot be written."""
    return Enclosures(
        Text("plain"),
        Text("html"),
        tuple(parts.file(file.name, file.content, file.content_id) for file in template.inline),
        tuple(parts.file(file.name, file.content, None) for file in template.attachments),
    )


_CONSTANT = (
    b"Auto-Submitted: auto-generated\r\n"  # RFC 3834 §5: nobody's vacation notice answers it
    b"Precedence: bulk\r\n"
    b"X-Auto-Response-Suppress: OOF, AutoReply\r\n"
    b"MIME-Version: 1.0\r\n"
)


def compose(
    sender: Sender,
    to: Sequence[Mailbox],
    sheet: Sheet,
    enclosures: Enclosures,
    *,
    message_ids: Sequence[bytes],
    date: datetime,
    unsubscribes: Sequence[bytes],
) -> list[bytes]:
    """Return the messages of a sheet, their lines ended by CRLF. Raises MessageFault if a value cannot stand in one.

    `to`, `message_ids` and `unsubscribes` hold for each message its recipient, a field that is the same at each
    attempt, and the fields that say how to leave; `date` is aware, the time of submission (RFC 5322 §3.6.1).
    """
    count = len(to)
    known: Encoded = {}
    before, *behind = parts.around(
        has_html=sheet.html is not None, inline=enclosures.inline, attachments=enclosures.attachments
    )
    pieces: list[Iterable[bytes]] = [
        repeat(_date(date.replace(microsecond=0)) + sender._fields, count),
        [headers.recipient(name, address) for address, name in to],
        [headers.text("Subject", subject) for subject in sheet.subjects],
        message_ids,
        unsubscribes,
        repeat(_CONSTANT + before),
        enclosures.plain.encode(sheet.text, count, known),
        repeat(behind[0]),
    ]
    if sheet.html is not None:
        pieces += (enclosures.html.encode(sheet.html, count, known), repeat(behind[1]))
    return list(map(b"".join, zip(*pieces, strict=False)))


@functools.lru_cache(4)
def _date(date: datetime) -> bytes:
    return headers.field("Date", format_datetime(date))


def _mailbox(mailbox: Mailbox, used: int) -> str:
    return headers.mailbox(mailbox.name, mailbox.address, used=used)


def _ascii(value: str, what: str) -> str:
    if not value.isascii() or " " in value:
        raise MessageFault(f"{what} takes ASCII without spaces: {value!r}")
    return headers.checked(value, what)
