"""Mail that asks to be left alone: to an address made for that, or with the word as its subject (RFC 2369 §3.2)."""

from __future__ import annotations

import re

from mailbound import tokens
from mailbound.model import Action
from mailbound.reading import phrases
from mailbound.reading.mail import Mail
from mailbound.reading.report import RecipientReport

_TOKEN = re.compile(rf"(?i)\+([a-z2-7]{{{tokens.LENGTH}}})@")
_SUBJECT = re.compile(rf"(?i)\s*unsubscribe\s+([a-z2-7]{{{tokens.LENGTH}}})\s*$")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def read(mail: Mail) -> tuple[RecipientReport, ...] | None:
    """Return a report for whoever asks to be unsubscribed, or None if nobody does."""
    named = is_by_program(mail) or any(is_for_that(token_of(address)) for address in mail.delivered_to)
    if (
        not named
        and not phrases.UNSUBSCRIBE_SUBJECT.match(mail.small_subject)
        and not in_subject(mail.subject)
    ):
        return None
    if not mail.sender:
        return ()
    return (RecipientReport(final_recipient=mail.sender, action=Action.UNSUBSCRIBED),)


def is_by_program(mail: Mail) -> bool:
    """Tell whether a mail program wrote it for its user, who chose to leave: Apple's says so."""
    return "x-apple-unsubscribe" in mail.headers


def token_of(address: str) -> str:
    """Return the token in an address of ours, in lower case; "" if it has none."""
    match = _TOKEN.search(address)
    return match[1].lower() if match else ""


def in_subject(subject: str) -> str:
    """Return the token of a subject such as `unsubscribe TOKEN`; "" if it has none.

    That is how a store without subaddressing lets people leave.
    """
    match = _SUBJECT.match(subject)
    return match[1].lower() if match and is_for_that(match[1].lower()) else ""


def is_for_that(token: str) -> bool:
    """Tell whether a token calls itself one for unsubscribing: its first three bits are its purpose."""
    return bool(token) and _ALPHABET.index(token[0]) >> 2 == tokens.Purpose.UNSUBSCRIBE
