"""Mail that asks to be left alone: to an address made for that, or with the word as its subject (RFC 2369 §3.2)."""

from __future__ import annotations

import re

from mailbound import tokens
from mailbound.model import Action
from mailbound.reading.mail import Mail
from mailbound.reading.report import RecipientReport

TOKEN = re.compile(rf"(?i)\+([a-z2-7]{{{tokens.LENGTH}}})@")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"

_SUBJECT = re.compile(
    r"(?i)^\s*(?:re:\s*)?(?:please\s+)?(?:unsubscribe(?:\s+(?:me|request))?|remove(?:\s+me)?|opt[- ]?out|abmelden|austragen"
    r"|se\s+d[eé]sabonner|d[eé]sinscription|cancelar\s+suscripci[oó]n|darse\s+de\s+baja|cancella(?:mi|zione)|uitschrijven"
    r"|отписаться|配信停止|退订)\s*[.!]*\s*$"
)


def read(mail: Mail) -> tuple[RecipientReport, ...] | None:
    """Return a report for whoever asks to be unsubscribed, or None if nobody does."""
    if not _SUBJECT.match(mail.subject) and not any(purpose_is_unsubscribe(a) for a in mail.delivered_to):
        return None
    return (RecipientReport(final_recipient=mail.sender, action=Action.UNSUBSCRIBED),) if mail.sender else ()


def purpose_is_unsubscribe(address: str) -> bool:
    """Tell whether `address` has what looks like an unsubscribe token: its first three bits are the purpose."""
    match = TOKEN.search(address)
    return match is not None and _ALPHABET.index(match[1][0].lower()) >> 2 == tokens.Purpose.UNSUBSCRIBE
