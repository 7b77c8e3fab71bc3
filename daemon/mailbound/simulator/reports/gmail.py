"""Reports as Gmail writes them: two blank lines between the groups, and a diagnostic of several lines."""

from __future__ import annotations

from mailbound.simulator.reports import mime
from mailbound.simulator.reports.notice import Notice

_SUBJECTS = {
    "failed": "Delivery Status Notification (Failure)",
    "delayed": "Delivery Status Notification (Delay)",
}
_NEWS = {
    "failed": "** Your message was not delivered **\n\nIt could not be handed to {}.",
    "delayed": "** Your message is not delivered yet **\n\nThe trouble with {} may pass: we try again.",
}


def write(notice: Notice) -> bytes | None:
    """Return the report, or None, since it tells nobody of a success."""
    if notice.action not in _SUBJECTS:
        return None
    site = f"mail-{notice.key[:4]}.{notice.origin}"
    boundary = notice.key.ljust(28, "0")
    kind, returned = notice.returned
    news = _NEWS[notice.action].format(notice.address)
    prose = mime.text(f"{news}\n\nThe response was:\n\n{notice.saying}\n")
    parts = [
        mime.part('text/plain; charset="UTF-8"', prose),
        mime.part("message/delivery-status", _status(notice)),
        mime.part(kind, returned),
    ]
    body = mime.multipart(boundary, parts)
    header = [
        *mime.delivered(notice, site),
        ("Content-Type", f'multipart/report; boundary="{boundary}"; report-type=delivery-status'),
        ("To", notice.to),
        ("Auto-Submitted", "auto-replied"),
        ("Subject", _SUBJECTS[notice.action]),
        ("Message-ID", f"<{notice.key}.{site}@mx.{notice.origin}>"),
        ("X-Failed-Recipients", notice.address),
        ("From", f"Mail Delivery Subsystem <mailer-daemon@{notice.origin}>"),
        ("Date", notice.date),
        ("MIME-Version", "1.0"),
    ]
    return mime.mail(header, body)


def _status(notice: Notice) -> bytes:
    code = notice.answer.reply.code
    said = notice.saying.removeprefix(f"{code} ")
    lines = f"{code}-{said}\r\n {code} {notice.status} - gsmtp" if notice.remote else said
    message = mime.fields(
        [
            ("Reporting-MTA", mime.typed("dns", notice.origin)),
            ("Arrival-Date", notice.date),
            ("X-Original-Message-ID", notice.field("message-id")),
        ]
    )
    recipient = mime.fields(
        [
            ("Final-Recipient", mime.typed("rfc822", notice.address)),
            ("Action", notice.action),
            ("Status", notice.status),
            ("Remote-MTA", mime.typed("dns", notice.remote)),
            ("Diagnostic-Code", mime.typed("smtp", lines)),
            ("Last-Attempt-Date", notice.date),
            ("Will-Retry-Until", notice.until if notice.action == "delayed" else ""),
        ]
    )
    return message + b"\r\n\r\n" + recipient
