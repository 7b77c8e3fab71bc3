"""Inbound mail is read: raw octets in, a `Report` out. No I/O, and no octets make it raise."""

from __future__ import annotations

import re

from mailbound.model import Action, Kind
from mailbound.reading import arf, autoreply, dsn, hints, phrases, prose, unsubscribe
from mailbound.reading.mail import Mail
from mailbound.reading.report import RecipientReport, Report

__all__ = ["RecipientReport", "Report", "read"]

_MESSAGE_ID = re.compile(r"<([^<>\s]{1,998})>")


def read(raw: bytes) -> Report:
    """Return what the mail says. Its structure decides first, then its headers, then its words."""
    mail = Mail(raw)
    return _structured(mail) or _automatic(mail) or _worded(raw, mail) or _personal(mail)


def _structured(mail: Mail) -> Report | None:
    feedback = arf.read(mail)
    if feedback:
        kind, recipients = feedback
        return _report(
            mail,
            Kind.COMPLAINT,
            recipients,
            part="arf",
            feedback_type=kind,
            why=f"It is a feedback report: {kind}.",
        )
    if autoreply.is_challenge(mail):
        return _report(mail, Kind.CHALLENGE, part="autoreply", why="It asks us to prove that we are people.")
    fields, recipients = dsn.read(mail)
    if recipients:
        kind = _kind(recipients)
        return _report(
            mail,
            kind,
            recipients,
            part="dsn",
            why=f"It is a delivery status notification: {kind}.",
            **_about_message(fields),
        )
    if any(leaf.content_type == "message/disposition-notification" for leaf in mail.leaves):
        return _report(mail, Kind.DISPOSITION, part="mdn", why="It tells what a reader did with the message.")
    return None


def _about_message(fields: dsn.Fields) -> dict[str, str]:
    return {
        "reporting_mta": dsn.typed(fields.get("reporting-mta", ""))[1],
        "original_envelope_id": fields.get("original-envelope-id", "").strip(),
    }


def _kind(recipients: tuple[RecipientReport, ...]) -> Kind:
    actions = {recipient.action for recipient in recipients}
    if Action.FAILED in actions:
        return Kind.BOUNCE
    return Kind.DELAY if Action.DELAYED in actions else Kind.SUCCESS


def _automatic(mail: Mail) -> Report | None:
    if autoreply.is_absence(mail) or (autoreply.is_automatic(mail) and not mail.is_from_daemon):
        return _report(mail, Kind.AUTO_REPLY, part="autoreply", why="An automatic responder wrote it.")
    return None


def _worded(raw: bytes, mail: Mail) -> Report | None:
    if not mail.may_report:
        return None
    about = _about_message(dsn.read(mail)[0])  # a DSN may name no recipient where its words do
    speaker, recipients = prose.read(mail)
    part = f"prose:{speaker}"
    if not recipients and (mail.is_from_daemon or phrases.REPORT_SUBJECT.search(mail.subject)):
        speaker, recipients = hints.read(raw, mail)
        part = f"flufl:{speaker}"
    if recipients:
        kind = _kind(recipients)
        return _report(mail, kind, recipients, part=part, why=f"Its words tell of a {kind}.", **about)
    if mail.part.content_type == "multipart/report" or (mail.has_null_path and mail.is_from_daemon):
        why = "It looks like a report, but names no recipient that we can find."
        return _report(mail, Kind.UNRECOGNISED, (), why=why, **about)
    return None


def _personal(mail: Mail) -> Report:
    if not mail.has_null_path:
        recipients = unsubscribe.read(mail)
        if recipients is not None:
            return _report(
                mail, Kind.UNSUBSCRIBE, recipients, part="unsubscribe", why="It asks to be unsubscribed."
            )
    return _report(mail, Kind.ORDINARY, why="Nothing shows that a mail system wrote it.")


def _report(mail: Mail, kind: Kind, recipients: tuple[RecipientReport, ...] = (), **rest: str) -> Report:
    returned = () if kind in {Kind.ORDINARY, Kind.AUTO_REPLY, Kind.UNSUBSCRIBE} else mail.returned
    ids = [
        found
        for headers in returned
        for value in headers.all("message-id")
        for found in _MESSAGE_ID.findall(value)
    ]
    return Report(
        kind=kind,
        recipients=recipients,
        returned_message_ids=tuple(dict.fromkeys(ids)),
        delivered_to=mail.delivered_to,
        subject=mail.subject,
        sender=mail.sender,
        **rest,
    )
