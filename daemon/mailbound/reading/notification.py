"""Notifications that a service writes as JSON into a mail: those of Amazon SES, as SNS sends them to an address.

They come as the object itself or wrapped once, as text in the `Message` of an envelope. What stands below the object,
such as how to leave the topic, is passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from mailbound.model import Action, Kind
from mailbound.reading import dsn
from mailbound.reading.mail import Mail
from mailbound.reading.report import RecipientReport, Report
from mailbound.status import StatusCode

Notice = Mapping[str, Any]

RECIPIENTS_LIMIT = 1000
DEPTH_LIMIT = 100  # brackets that may be open at once: the standard reader recurses

# JSON can write NUL and half a character (RFC 8259 §8.2): no database stores them.
_NO_CHARACTER = re.compile("[\0\ud800-\udfff]")

# The name of an event: its kind, its object, the list of recipients in there, the action.
_EVENTS = {
    "bounce": (Kind.BOUNCE, "bounce", "bouncedRecipients", Action.FAILED),
    "complaint": (Kind.COMPLAINT, "complaint", "complainedRecipients", Action.COMPLAINED),
    "delivery": (Kind.SUCCESS, "delivery", "recipients", Action.DELIVERED),
    "deliverydelay": (Kind.DELAY, "deliveryDelay", "delayedRecipients", Action.DELAYED),
}


def read(mail: Mail) -> Report | None:
    """Return what the notification says, without what is told of the mail around it; None if it is none of these."""
    if not (mail.mentions(b"notificationtype") or mail.mentions(b"eventtype")):
        return None
    notice = _object(next((leaf.text for leaf in mail.leaves), ""))
    if isinstance(notice.get("Message"), str):
        notice = _object(notice["Message"])
    event = _EVENTS.get(_text(notice, "notificationType").lower() or _text(notice, "eventType").lower())
    if event is None:
        return None
    kind, name, listed, action = event
    about, sent = notice.get(name), notice.get("mail")
    if not isinstance(about, dict) or not isinstance(sent, dict):
        return None
    found = (_recipient(entry, about, action) for entry in _list(about, listed))
    return Report(
        kind=kind,
        recipients=tuple(one for one in found if one),
        reporting_mta=dsn.typed(_text(about, "reportingMTA"))[1],
        returned_message_ids=_message_ids(sent),
        feedback_type=(_text(about, "complaintFeedbackType") or "abuse") if kind is Kind.COMPLAINT else "",
        part="ses",
        why=f"It is a notification of a {kind} by a mail service.",
    )


def _message_ids(sent: Notice) -> tuple[str, ...]:
    fields = [one for one in _list(sent, "headers") if isinstance(one, dict)]
    values = [_text(one, "value") for one in fields if _text(one, "name").lower() == "message-id"]
    return tuple(value.strip("<> ") for value in values if value)


def _recipient(entry: Any, about: Notice, action: Action) -> RecipientReport | None:
    fields: Notice = entry if isinstance(entry, dict) else {"emailAddress": entry}
    address = dsn.recipient_address(_text(fields, "emailAddress"))
    if "@" not in address:
        return None
    kind, text = dsn.typed(_text(fields, "diagnosticCode") or _text(about, "smtpResponse"))
    text = text or " ".join(filter(None, (_text(about, "bounceType"), _text(about, "bounceSubType"))))
    return RecipientReport(
        final_recipient=address,
        action=action,
        status=StatusCode.find(_text(fields, "status")) or StatusCode.find(text),
        diagnostic_code=" ".join(text.split()),
        diagnostic_type=kind,
    )


def _object(text: str) -> dict[str, Any]:
    """Return the JSON object that `text` begins with; {} if there is none that can be read."""
    text = text.replace("!\n ", "").lstrip("\ufeff \t\r\n")  # Sendmail breaks lines over 990 octets so
    if not text.startswith("{") or _depth(text) > DEPTH_LIMIT:
        return {}
    try:
        found, _ = json.JSONDecoder(strict=False).raw_decode(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _depth(text: str) -> int:
    """Return how many brackets are open at most. Those within strings count too: a limit may err on that side."""
    depth = most = 0
    for letter in text:
        if letter in "{[":
            depth += 1
            most = max(most, depth)
        elif letter in "}]":
            depth -= 1
    return most


def _list(fields: Notice, name: str) -> list[Any]:
    value = fields.get(name)
    return value[:RECIPIENTS_LIMIT] if isinstance(value, list) else []


def _text(fields: Notice, name: str) -> str:
    value = fields.get(name)
    return _NO_CHARACTER.sub("\ufffd", value) if isinstance(value, str) else ""
