"""A complaint by way of a feedback loop, in the Abuse Reporting Format (RFC 5965)."""

from __future__ import annotations

from mailbound.simulator.reports import mime
from mailbound.simulator.reports.notice import Notice


def write(notice: Notice) -> bytes:
    """Return the report; it hands back the whole message, as feedback loops do."""
    boundary = f"fbl_{notice.key}"
    prose = mime.text(
        f"This is an abuse report for a message that came to {notice.domain}\n"
        f"on {notice.date}: its recipient pressed the button that calls it spam.\n"
    )
    about = mime.fields(
        [
            ("Feedback-Type", "abuse"),
            ("User-Agent", "Simulator-FBL/1.0"),
            ("Version", "1"),
            ("Original-Mail-From", f"<{notice.to}>"),
            ("Original-Rcpt-To", f"<{notice.address}>"),
            ("Arrival-Date", notice.date),
            ("Reported-Domain", notice.to.rpartition("@")[2]),
            ("Source-IP", "192.0.2.25"),
        ]
    )
    parts = [
        mime.part("text/plain; charset=us-ascii", prose),
        mime.part("message/feedback-report", about),
        mime.part("message/rfc822", notice.envelope.content, [("Content-Disposition", "inline")]),
    ]
    body = mime.multipart(boundary, parts)
    header = [
        *mime.delivered(notice, f"fbl.{notice.domain}"),
        ("From", f"Feedback Loop <fbl@{notice.domain}>"),
        ("To", notice.to),
        ("Date", notice.date),
        ("Subject", "Abuse report"),
        ("Message-ID", f"<{notice.key}@fbl.{notice.domain}>"),
        ("MIME-Version", "1.0"),
        ("Content-Type", f'multipart/report; report-type=feedback-report;\r\n\tboundary="{boundary}"'),
        ("Content-Transfer-Encoding", mime.encoding(body)),
    ]
    return mime.mail(header, body)
