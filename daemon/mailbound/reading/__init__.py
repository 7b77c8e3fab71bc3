r"""Inbound mail is read: raw octets in, a `Report` out. No I/O, and no octets make it raise.

It is a library of its own: nothing is configured, and nothing else of mailbound has to run.

>>> from mailbound.reading import read
>>> report = read(
...     b"From: MAILER-DAEMON@mta.example\r\n"
...     b"To: news@sender.example\r\n"
...     b"Subject: failure notice\r\n"
...     b"\r\n"
...     b"I'm afraid I wasn't able to deliver your message to the following addresses.\r\n"
...     b"\r\n"
...     b"<bob@x.example>:\r\n"
...     b"192.0.2.1 does not like recipient. Remote host said: 550 5.1.1 No such mailbox\r\n"
... )
>>> print(report.kind, report.why)
bounce Its words tell of a bounce.
>>> for one in report.recipients:
...     print(one.recipient, one.action, one.status)
bob@x.example failed 5.1.1

What the failure means is the question of `mailbound.classify`; which delivery it speaks of, of `mailbound.correlate`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mailbound.model import Action, Kind
from mailbound.reading import arf, autoreply, dsn, hints, notification, prose, unsubscribe
from mailbound.reading.mail import Mail
from mailbound.reading.report import RecipientReport, Report
from mailbound.status import StatusCode

__all__ = ["RecipientReport", "Report", "read"]

_GIVE_NONE_BACK = (
    Kind.ORDINARY,
    Kind.AUTO_REPLY,
    Kind.UNSUBSCRIBE,
)  # no set: to hash an Enum is slower than to look
_KINDS = {Action.FAILED: Kind.BOUNCE, Action.DELAYED: Kind.DELAY, Action.DELIVERED: Kind.SUCCESS}


def read(raw: bytes) -> Report:
    """Return what the mail says. Its structure decides first, then its headers, then its words."""
    mail = Mail(raw)
    return _complaint(mail) or _other(raw, mail, dsn.read(mail))


def _other(raw: bytes, mail: Mail, status: dsn.Status) -> Report:
    return _structured(mail, status) or _automatic(mail) or _worded(raw, mail, status) or _personal(mail)


def _complaint(mail: Mail) -> Report | None:
    feedback = arf.read(mail)
    if feedback is None:
        return None
    kind, recipients = feedback
    why = f"It is a feedback report: {kind}."
    return _report(mail, Kind.COMPLAINT, recipients, part="arf", feedback_type=kind, why=why)


def _structured(mail: Mail, status: dsn.Status) -> Report | None:
    if autoreply.is_challenger(mail):  # some dress it up as a failure
        return _challenge(mail)
    fields, recipients = status
    if recipients:
        kind = _kind(recipients)
        if kind is Kind.SUCCESS and autoreply.is_automatic(mail) and not mail.calls_itself_report:
            return None  # mailbot answers with a DSN: it delivered the message to an absent person
        return _report(
            mail,
            kind,
            recipients,
            part="dsn",
            why=f"It is a delivery status notification: {kind}.",
            **_about_message(fields),
        )
    if autoreply.asks_to_prove(mail):
        return _challenge(mail)
    notice = notification.read(mail) if mail.may_hold_object else None
    if notice:
        return replace(notice, **_about_mail(mail))
    if mail.mentions_part(b"disposition-notification") and any(
        leaf.content_type == "message/disposition-notification" for leaf in mail.leaves
    ):
        return _report(mail, Kind.DISPOSITION, part="mdn", why="It tells what a reader did with the message.")
    return None


def _challenge(mail: Mail) -> Report:
    return _report(mail, Kind.CHALLENGE, part="autoreply", why="It asks us to prove that we are people.")


def _about_message(fields: dsn.Fields) -> dict[str, str]:
    return {
        "reporting_mta": dsn.typed(fields.get("reporting-mta", ""))[1],
        "original_envelope_id": fields.get("original-envelope-id", "").strip(),
    }


def _kind(recipients: tuple[RecipientReport, ...]) -> Kind:
    actions = [recipient.action for recipient in recipients]
    if Action.FAILED in actions:
        return Kind.BOUNCE
    return Kind.DELAY if Action.DELAYED in actions else Kind.SUCCESS


def _automatic(mail: Mail) -> Report | None:
    if unsubscribe.is_by_program(mail):
        return None
    reports = mail.calls_itself_report and mail.may_report
    if autoreply.is_absence(mail) or (autoreply.is_automatic(mail) and not reports):
        return _report(mail, Kind.AUTO_REPLY, part="autoreply", why="An automatic responder wrote it.")
    return None


def _worded(raw: bytes, mail: Mail, status: dsn.Status) -> Report | None:
    if not mail.may_report:
        return None
    fields, _ = status
    about = _about_message(fields)  # a DSN may name no recipient where its words do
    speaker, recipients = prose.read(mail)
    if not recipients and (inner := _enclosed(mail)):
        return inner
    if not recipients:
        speaker, recipients = prose.guess(mail)
    part = f"prose:{speaker}"
    if not recipients and mail.calls_itself_report:
        speaker, recipients = hints.read(raw, mail)
        part = f"flufl:{speaker}"
    if recipients:
        kind = _kind(recipients)
        if len(recipients) == 1 and recipients[0].status is None and "status" in fields:
            recipients = (replace(recipients[0], status=StatusCode.find(fields["status"])),)
        return _report(mail, kind, recipients, part=part, why=f"Its words tell of a {kind}.", **about)
    return _nameless(mail, about)


def _enclosed(mail: Mail) -> Report | None:
    """Return what an enclosed report says, if a mail system passes one on and says nothing of its own (InterScan)."""
    if not (mail.is_from_daemon or mail.has_null_path) or not mail.given_back:
        return None
    inner = Mail(mail.given_back[0])
    if not inner.may_report:
        return None
    report = _complaint(inner) or _structured(inner, dsn.read(inner))
    if report is None:
        speaker, recipients = prose.read(inner)
        report = _report(inner, _kind(recipients), recipients, part=f"prose:{speaker}")
    if not report.recipients:
        return None
    why = f"A mail system passes on a report of a {report.kind}."
    return replace(report, part=f"enclosed:{report.part}", why=why, **_about_mail(mail))


def _nameless(mail: Mail, about: dict[str, str]) -> Report | None:
    """Return the report of a mail system that names nobody: our own token may still tell whom it means."""
    is_report = mail.is_delivery_report
    if not is_report and not (mail.is_from_daemon and (mail.is_from_nobody or mail.given_back)):
        return None  # anybody can call themselves a mail system; that the mailbox is full is a favourite of theirs
    if prose.tells(mail):
        kind = _KINDS[prose.action_of(mail)]
        why = f"It tells of a {kind} and names nobody."
        return _report(mail, kind, (), part="prose:nameless", why=why, **about)
    if autoreply.is_automatic(mail) and not is_report:
        return _report(mail, Kind.AUTO_REPLY, part="autoreply", why="An automatic responder wrote it.")
    why = "It looks like a report, but names no recipient that we can find."
    return _report(mail, Kind.UNRECOGNISED, (), why=why, **about)


def _personal(mail: Mail) -> Report:
    if not mail.has_null_path:
        recipients = unsubscribe.read(mail)
        if recipients is not None:
            return _report(
                mail, Kind.UNSUBSCRIBE, recipients, part="unsubscribe", why="It asks to be unsubscribed."
            )
    return _report(mail, Kind.ORDINARY, why="Nothing shows that a mail system wrote it.")


def _report(mail: Mail, kind: Kind, recipients: tuple[RecipientReport, ...] = (), **rest: Any) -> Report:
    gives_none_back = kind in _GIVE_NONE_BACK
    return Report(
        kind=kind,
        recipients=recipients,
        returned_message_ids=() if gives_none_back else mail.returned_ids,
        delivered_to=mail.delivered_to,
        subject=mail.subject,
        sender=mail.sender,
        **rest,
    )


def _about_mail(mail: Mail) -> dict[str, Any]:
    return {"delivered_to": mail.delivered_to, "subject": mail.subject, "sender": mail.sender}
