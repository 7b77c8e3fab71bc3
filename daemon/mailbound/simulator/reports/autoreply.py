"""An automatic answer of somebody who is away (RFC 3834, RFC 5230)."""

from __future__ import annotations

from mailbound.simulator.reports import mime
from mailbound.simulator.reports.notice import Notice


def write(notice: Notice) -> bytes:
    """Return the answer, which quotes nothing but the subject and the Message-ID."""
    message_id = notice.field("message-id")
    header = [
        *mime.delivered(notice, f"mx.{notice.domain}"),
        ("From", f"<{notice.address}>"),
        ("To", f"<{notice.to}>"),
        ("Subject", f"Auto: {notice.field('subject') or 'your message'}"),
        ("Date", notice.date),
        ("Message-ID", f"<vacation.{notice.key}@mx.{notice.domain}>"),
        ("In-Reply-To", message_id),
        ("References", message_id),
        ("Auto-Submitted", "auto-replied (vacation)"),
        ("Precedence", "bulk"),
        ("MIME-Version", "1.0"),
        ("Content-Type", "text/plain; charset=utf-8"),
    ]
    prose = """
        Thank you for your message. I am away until the first of next month
        and shall read it then.
        """
    return mime.mail(header, mime.text(prose))
