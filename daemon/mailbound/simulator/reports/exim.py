"""Reports as Exim writes them: every status is x.0.0, so that only the diagnostic tells what happened."""

from __future__ import annotations

from mailbound.simulator.reports import mime
from mailbound.simulator.reports.notice import Notice

_SUBJECTS = {
    "failed": "Mail delivery failed: returning message to sender",
    "delayed": "Warning: message {} delayed 24 hours",
    "delivered": "Delivery Status Notification",
}
_STATUSES = {"failed": "5.0.0", "delayed": "4.0.0", "delivered": "2.0.0"}
_NEWS = {
    "failed": "Your message was given up for the address below. This error is permanent:",
    "delayed": "Your message waits for the address below. Nothing is for you to do; it is tried again:",
    "delivered": "Your message was delivered to the address below:",
}


def write(notice: Notice) -> bytes:
    """Return the report."""
    boundary = f"{notice.at.timestamp():.0f}-eximdsn-{int(notice.key[:8], 16)}"
    kind, returned = notice.returned
    parts = [
        mime.part("text/plain; charset=us-ascii", _prose(notice)),
        mime.part("message/delivery-status", _status(notice)),
        mime.part(kind, returned),
    ]
    body = mime.multipart(boundary, parts)
    header = [
        *mime.delivered(notice, notice.relay),
        ("X-Failed-Recipients", notice.address if notice.action == "failed" else ""),
        ("Auto-Submitted", "auto-replied"),
        ("From", f"Mail Delivery System <Mailer-Daemon@{notice.relay}>"),
        ("To", notice.to),
        ("References", notice.field("message-id")),
        ("Content-Type", f"multipart/report; report-type=delivery-status; boundary={boundary}"),
        ("MIME-Version", "1.0"),
        ("Subject", _SUBJECTS[notice.action].format(_id(notice))),
        ("Message-Id", f"<E{_id(notice)}@{notice.relay}>"),
        ("Date", notice.date),
    ]
    return mime.mail(header, body)


def _id(notice: Notice) -> str:
    return f"1{notice.key[:5]}-{notice.key[5:11]}-{notice.key[11:13]}"


def _prose(notice: Notice) -> bytes:
    if notice.remote:
        said = f"host {notice.remote} [192.0.2.80]\n    SMTP error from remote mail server after RCPT TO:"
        said += f"<{notice.address}>:\n    {notice.saying}"
    elif notice.action == "failed" and notice.status.startswith("4"):
        said = f"{notice.saying}: retry timeout exceeded"
    else:
        said = notice.saying
    return mime.text(
        f"This message was created automatically by mail delivery software.\n\n"
        f"{_NEWS[notice.action]}\n\n  {notice.address}\n    {said}\n"
    )


def _status(notice: Notice) -> bytes:
    message = mime.fields(
        [
            ("Reporting-MTA", mime.typed("dns", notice.relay)),
            ("Original-Envelope-Id", notice.envelope.envid),
        ]
    )
    recipient = mime.fields(
        [
            ("Action", notice.action),
            ("Original-Recipient", notice.original),
            ("Final-Recipient", f"rfc822;{notice.address}"),
            ("Status", _STATUSES[notice.action]),
            ("Remote-MTA", mime.typed("dns", notice.remote)),
            ("Diagnostic-Code", mime.typed("smtp", notice.saying if notice.remote else "")),
        ]
    )
    return message + b"\r\n" + recipient
