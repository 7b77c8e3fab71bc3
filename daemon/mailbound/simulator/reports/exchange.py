"""Reports as Exchange Online writes them: the recipient's own site reports, with HTML and its own words."""

from __future__ import annotations

import html

from mailbound.simulator.reports import mime
from mailbound.simulator.reports.notice import Notice

_SUBJECTS = {"failed": "Undeliverable: {}", "delayed": "Delivery delayed: {}", "delivered": "Delivered: {}"}
_NEWS = {
    "failed": "Your message to {} couldn't be delivered.",
    "delayed": "Your message to {} hasn't been delivered yet. We'll keep trying.",
    "delivered": "Your message to {} has been delivered.",
}
_REASONS = {
    "5.1.1": "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup",
    "5.2.2": "554 5.2.2 STOREDRV.Deliver.Exception:QuotaExceededException; Mailbox is full",
    "5.2.1": "550 5.2.1 RESOLVER.RST.RecipientDisabled; mailbox is disabled",
    "4.4.7": "550 4.4.7 QUEUE.Expired; message expired",
}


def write(notice: Notice) -> bytes:
    """Return the report."""
    site = f"outlook.{notice.origin}"
    boundary = f"_000_{notice.key.upper()}_"
    inner = f"_001_{notice.key.upper()}_"
    subject = notice.field("subject") or "(no subject)"
    kind, returned = notice.returned
    alternative = mime.multipart(inner, [_plain(notice), _html(notice)])
    parts = [
        mime.part(f'multipart/alternative;\r\n\tboundary="{inner}"', alternative),
        mime.part("message/delivery-status", _status(notice, site)),
        mime.part(kind, returned),
    ]
    body = mime.multipart(boundary, parts)
    header = [
        *mime.delivered(notice, site),
        ("MIME-Version", "1.0"),
        ("From", f"<postmaster@{notice.origin}>"),
        ("To", f"<{notice.to}>"),
        ("Date", notice.date),
        ("Content-Type", f'multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"'),
        ("Content-Language", "en-US"),
        ("Message-ID", f"<{notice.key}@{site}>"),
        ("In-Reply-To", notice.field("message-id")),
        ("Subject", _SUBJECTS[notice.action].format(subject)),
        ("Auto-Submitted", "auto-replied"),
        ("X-MS-Exchange-Generated-Message-Source", "Bounce Classification Agent"),
    ]
    return mime.mail(header, body)


def _saying(notice: Notice) -> str:
    return _REASONS.get(notice.status, notice.saying)


def _plain(notice: Notice) -> bytes:
    prose = mime.text(
        f"{_NEWS[notice.action].format(notice.address)}\n\n"
        f"Diagnostic information for administrators:\n\n"
        f"Generating server: outlook.{notice.origin}\n\n{notice.address}\n"
        f"Remote server returned '{_saying(notice)}'\n"
    )
    return mime.part("text/plain; charset=utf-8", prose)


def _html(notice: Notice) -> bytes:
    news = html.escape(_NEWS[notice.action].format(notice.address))
    said = html.escape(_saying(notice))
    prose = mime.text(f"<html><body><p>{news}</p>\n<p>Remote server returned '{said}'</p></body></html>")
    return mime.part("text/html; charset=utf-8", prose)


def _status(notice: Notice, site: str) -> bytes:
    saying = _saying(notice)
    status = saying.split()[1] if saying[:1].isdigit() else notice.status
    message = mime.fields(
        [
            ("Original-Envelope-Id", notice.envelope.envid),
            ("Reporting-MTA", f"dns;{site}"),
            ("Received-From-MTA", f"dns;{notice.relay}"),
            ("Arrival-Date", notice.date),
        ]
    )
    recipient = mime.fields(
        [
            ("Original-Recipient", notice.original),
            ("Final-Recipient", f"rfc822;{notice.address}"),
            ("Action", notice.action),
            ("Status", status),
            ("Diagnostic-Code", f"smtp;{saying}"),
            ("Remote-MTA", f"dns;{notice.remote}" if notice.remote else ""),
            ("X-Display-Name", notice.address.partition("@")[0]),
        ]
    )
    return message + b"\r\n" + recipient
