"""Reports as OpenSMTPD writes them: multipart/mixed, no diagnostic field, and no sign of being automatic."""

from __future__ import annotations

from mailbound.simulator.reports import mime
from mailbound.simulator.reports.notice import Notice

_SUBJECTS = {
    "failed": "Delivery status notification: error",
    "delayed": "Delivery status notification: delayed",
    "delivered": "Delivery status notification: success",
}
_NEWS = {
    "failed": "An error occurred while your message was being delivered to:",
    "delayed": "Your message has been waiting for more than four hours for:",
    "delivered": "Your message was delivered to:",
}


def write(notice: Notice) -> bytes:
    """Return the report."""
    boundary = f"{int(notice.key, 16)}/{notice.relay}"
    _, returned = notice.returned
    parts = [
        mime.part("text/plain; charset=us-ascii", _prose(notice), [("Content-Description", "Notification")]),
        mime.part("message/delivery-status", _status(notice), [("Content-Description", "Delivery Report")]),
        mime.part(
            "message/rfc822" if notice.envelope.ret == "FULL" else "text/rfc822-headers",
            returned,
            [("Content-Description", "Message headers")],
        ),
    ]
    header = [
        *mime.delivered(notice, notice.relay),
        ("Subject", _SUBJECTS[notice.action]),
        ("From", f"Mailer Daemon <MAILER-DAEMON@{notice.relay}>"),
        ("To", notice.to),
        ("Date", notice.date),
        ("Message-ID", f"<{notice.key}@{notice.relay}>"),
        ("MIME-Version", "1.0"),
        ("Content-Type", f'multipart/mixed;boundary="{boundary}"'),
    ]
    return mime.mail(header, mime.multipart(boundary, parts, "This is a MIME-encapsulated message.\r\n\r\n"))


def _prose(notice: Notice) -> bytes:
    return mime.text(
        f"Hi!\n\nThis is the MAILER-DAEMON of {notice.relay}.\n\n"
        f"{_NEWS[notice.action]}\n\n    {notice.address}: {notice.saying}\n\n"
        f"What follows is a copy of the head of your message.\n"
    )


def _status(notice: Notice) -> bytes:
    recipient = [
        ("Final-Recipient", mime.typed("rfc822", notice.address)),
        ("Action", "error" if notice.action == "failed" else notice.action),
        ("Status", f"{notice.status[0]}.0.0"),
    ]
    return (
        mime.fields([("Reporting-MTA", mime.typed("dns", notice.relay))]) + b"\r\n" + mime.fields(recipient)
    )
