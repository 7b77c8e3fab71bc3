"""Reports as Postfix writes them: by the book, with ENVID and ORCPT, for failures, delays and successes.

RFC 3464, and RFC 6533 for messages that came with SMTPUTF8.
"""

from __future__ import annotations

from mailbound.simulator.reports import mime
from mailbound.simulator.reports.notice import Notice

_SUBJECTS = {
    "failed": "Undelivered Mail Returned to Sender",
    "delayed": "Delayed Mail (still being retried)",
    "delivered": "Successful Mail Delivery Report",
}
_NEWS = {
    "failed": """
        Your message could not be handed to the recipient named below, and
        no further attempt will be made. What you sent is attached.
        """,
    "delayed": """
        Your message has been waiting for a while, and will be tried again
        until its time is over. THIS IS ONLY A WARNING: do not send it again.
        """,
    "delivered": """
        Your message has reached the recipient named below. You asked to
        be told so.
        """,
}


def write(notice: Notice) -> bytes:
    """Return the report."""
    boundary = f"{notice.key[:10].upper()}.{notice.at.timestamp():.0f}/{notice.relay}"
    glob = notice.envelope.utf8
    kind, returned = notice.returned
    charset = "utf-8" if glob else "us-ascii"
    parts = [
        mime.part(
            f"text/plain; charset={charset}", _prose(notice), [("Content-Description", "Notification")]
        ),
        mime.part(
            "message/global-delivery-status" if glob else "message/delivery-status",
            _status(notice),
            [("Content-Description", "Delivery report")],
        ),
        mime.part(kind, returned, [("Content-Description", "Undelivered Message")]),
    ]
    body = mime.multipart(boundary, parts, "This is a MIME-encapsulated message.\r\n\r\n")
    header = [
        *mime.delivered(notice, notice.relay),
        ("Date", notice.date),
        ("From", f"MAILER-DAEMON@{notice.relay} (Mail Delivery System)"),
        ("Subject", _SUBJECTS[notice.action]),
        ("To", notice.to),
        ("Auto-Submitted", "auto-replied"),
        ("MIME-Version", "1.0"),
        (
            "Content-Type",
            f'multipart/report; report-type={"global-" * glob}delivery-status;\r\n\tboundary="{boundary}"',
        ),
        ("Content-Transfer-Encoding", mime.encoding(body)),
        ("Message-Id", f"<{notice.key}@{notice.relay}>"),
    ]
    return mime.mail(header, body)


def _prose(notice: Notice) -> bytes:
    said = f"host {notice.remote}[192.0.2.80] said: {notice.saying}" if notice.remote else notice.saying
    told = f"<{notice.address}>: {said}\n"
    opening = mime.text(f"This is the mail system at host {notice.relay}.\n")
    return opening + b"\r\n" + mime.text(_NEWS[notice.action]) + b"\r\n" + mime.text(told)


def _status(notice: Notice) -> bytes:
    kind = "utf-8" if notice.envelope.utf8 else "rfc822"
    message = mime.fields(
        [
            ("Reporting-MTA", mime.typed("dns", notice.relay)),
            ("Original-Envelope-Id", notice.envelope.envid),
            ("X-Postfix-Queue-ID", notice.envelope.queue_id),
            ("X-Postfix-Sender", mime.typed(kind, notice.to)),
            ("Arrival-Date", notice.date),
        ]
    )
    recipient = mime.fields(
        [
            ("Final-Recipient", mime.typed(kind, notice.address)),
            ("Original-Recipient", notice.original or mime.typed(kind, notice.address)),
            ("Action", notice.action),
            ("Status", notice.status),
            ("Remote-MTA", mime.typed("dns", notice.remote)),
            ("Diagnostic-Code", mime.typed("smtp" if notice.remote else "X-Postfix", notice.saying)),
            ("Will-Retry-Until", notice.until if notice.action == "delayed" else ""),
        ]
    )
    return message + b"\r\n" + recipient
