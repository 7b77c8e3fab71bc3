"""Abuse reports (RFC 5965): a recipient, or their provider, complains about a message."""

from __future__ import annotations

from mailbound.model import Action
from mailbound.reading import dsn
from mailbound.reading.mail import Mail
from mailbound.reading.report import RecipientReport
from mailbound.reading.structure import TEXT_LIMIT, text_of, with_lf

TYPE = "message/feedback-report"

# Not a wish to be left alone: the first takes a complaint back, the others speak of signatures (RFC 6591, 9990).
_NO_COMPLAINT = frozenset({"not-spam", "auth-failure", "dmarc", "virus"})


def read(mail: Mail) -> tuple[str, tuple[RecipientReport, ...]] | None:
    """Return the feedback type and a report for each complaining recipient, or None if the mail is no such report.

    Recipients are often redacted (RFC 6590), so that none is named; a type that is no complaint names none either.
    A report without a Feedback-Type is taken for `abuse`, which is what such senders mean.
    """
    if not mail.mentions_part(b"feedback-report"):
        return ("abuse", ()) if _is_hotmail(mail) else None
    part = next((leaf for leaf in mail.leaves if leaf.content_type == TYPE), None)
    if part is None:
        stated = "feedback-report" in mail.part.parameter("report-type").lower()
        return ("abuse", ()) if stated else None
    fields: dsn.Fields = {}
    for group in dsn.split(text_of(with_lf(part.content[:TEXT_LIMIT]))):
        fields = group | fields
    feedback = fields.get("feedback-type", "").partition(";")[0].strip().lower() or "abuse"
    if feedback in _NO_COMPLAINT:
        return feedback, ()
    named = dsn.recipient_address(fields.get("original-rcpt-to", "") or fields.get("removal-recipient", ""))
    if "@" not in named:
        return feedback, ()
    return feedback, (RecipientReport(final_recipient=named, action=Action.COMPLAINED),)


def _is_hotmail(mail: Mail) -> bool:
    """Tell whether it is a report of Outlook.com, which wraps the message and says no more than this subject."""
    return mail.sender == "staff@hotmail.com" and "complaint about message from" in mail.subject.lower()
