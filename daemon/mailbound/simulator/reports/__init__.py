"""The mails that come back, each in the form that a real server would give it; one form per file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from mailbound.model import Kind
from mailbound.simulator.behaviour import Answer
from mailbound.simulator.envelope import Envelope, Recipient
from mailbound.simulator.reports import (
    autoreply,
    complaint,
    exchange,
    exim,
    gmail,
    opensmtpd,
    postfix,
    qmail,
    sendmail,
    unsubscribe,
)
from mailbound.simulator.reports.notice import Notice

FORMS: dict[str, Callable[[Notice], bytes | None]] = {
    "postfix": postfix.write,
    "exim": exim.write,
    "exchange": exchange.write,
    "qmail": qmail.write,
    "sendmail": sendmail.write,
    "gmail": gmail.write,
    "opensmtpd": opensmtpd.write,
}
_OTHERS: dict[Kind, Callable[[Notice], bytes | None]] = {
    Kind.COMPLAINT: complaint.write,
    Kind.AUTO_REPLY: autoreply.write,
    Kind.UNSUBSCRIBE: unsubscribe.write,
}
_OCCASIONS = {Kind.BOUNCE: "FAILURE", Kind.DELAY: "DELAY", Kind.SUCCESS: "SUCCESS"}


def is_due(answer: Answer, envelope: Envelope, recipient: Recipient) -> bool:
    """Return whether `answer` may be sent: never to <>, and never against NOTIFY (RFC 3461 §4.1)."""
    if not envelope.sender:
        return False
    return answer.kind not in _OCCASIONS or recipient.wants(_OCCASIONS[answer.kind])


def write(notice: Notice, form: str | None = None) -> bytes | None:
    """Return the mail, or None if there is nowhere to send it.

    A delivery report takes the given form or, if that is None, the one that the recipient's domain
    always has. Where a form has no words for an occasion, the relay's own report is sent.
    """
    other = _OTHERS.get(notice.answer.kind)
    if other is not None:
        return other(notice)
    return FORMS[form or form_of(notice.domain)](notice) or postfix.write(notice)


def form_of(domain: str) -> str:
    """Return whose reports a domain sends."""
    digest = hashlib.blake2b(domain.lower().encode(), digest_size=8).digest()
    return tuple(FORMS)[int.from_bytes(digest, "big") % len(FORMS)]
