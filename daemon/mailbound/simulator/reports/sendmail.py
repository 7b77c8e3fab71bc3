"""Reports as sendmail writes them: upper-case address types, and a transcript of the session as prose."""

from __future__ import annotations

from mailbound.simulator.reports import mime
from mailbound.simulator.reports.notice import Notice

_SUBJECTS = {
    "failed": "Returned mail: see transcript for details",
    "delayed": "Warning: could not send message for past 4 hours",
    "delivered": "Return receipt",
}


def write(notice: Notice) -> bytes:
    """Return the report."""
    boundary = f"{notice.key[:14]}.{notice.at.timestamp():.0f}/{notice.relay}"
    kind, returned = notice.returned
    parts = [
        mime.mail([], _prose(notice)),  # its first part has no header
        mime.part("message/delivery-status", _status(notice)),
        mime.part(kind, returned),
    ]
    body = mime.multipart(boundary, parts, "This is a MIME-encapsulated message\r\n\r\n")
    header = [
        *mime.delivered(notice, notice.relay),
        ("Date", notice.date),
        ("From", f"Mail Delivery Subsystem <MAILER-DAEMON@{notice.relay}>"),
        ("Message-Id", f"<{notice.at:%Y%m%d%H%M}.{notice.key[:14]}@{notice.relay}>"),
        ("To", f"<{notice.to}>"),
        ("MIME-Version", "1.0"),
        ("Content-Type", f'multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"'),
        ("Content-Transfer-Encoding", mime.encoding(body)),
        ("Subject", _SUBJECTS[notice.action]),
        ("Auto-Submitted", "auto-generated (failure)" if notice.action == "failed" else "auto-generated"),
    ]
    return mime.mail(header, body)


def _prose(notice: Notice) -> bytes:
    session = (
        f"... while talking to {notice.remote}.:\n>>> RCPT To:<{notice.address}>\n<<< {notice.saying}"
        if notice.remote
        else f"{notice.status} <{notice.address}>... {notice.saying}"
    )
    trouble = {
        "failed": "The following address had a permanent fatal error",
        "delayed": "The following address has not been reached yet",
        "delivered": "The following address was reached",
    }
    return mime.text(
        f"The original message was received at {notice.date}\n"
        f"from client.simulator.test [192.0.2.25]\n\n"
        f"   ----- {trouble[notice.action]} -----\n<{notice.address}>\n"
        f"    (reason: {notice.saying})\n\n"
        f"   ----- Transcript of session follows -----\n{session}\n"
    )


def _status(notice: Notice) -> bytes:
    message = mime.fields(
        [
            ("Original-Envelope-Id", notice.envelope.envid),
            ("Reporting-MTA", mime.typed("dns", notice.relay)),
            ("Received-From-MTA", "DNS; client.simulator.test"),
            ("Arrival-Date", notice.date),
        ]
    )
    recipient = mime.fields(
        [
            ("Original-Recipient", notice.original),
            ("Final-Recipient", mime.typed("RFC822", notice.address)),
            ("Action", notice.action),
            ("Status", notice.status),
            ("Remote-MTA", mime.typed("DNS", notice.remote)),
            ("Diagnostic-Code", mime.typed("SMTP", notice.saying if notice.remote else "")),
            ("Last-Attempt-Date", notice.date),
            ("Will-Retry-Until", notice.until if notice.action == "delayed" else ""),
        ]
    )
    return message + b"\r\n" + recipient
