"""The body of a message as MIME parts (RFC 2045, 2046, 2387). All of it is 7-bit, in lines of at most 76 octets."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Iterable, Sequence

from mailbound.message import headers

# `=_` occurs in neither quoted-printable nor base64, so these occur in no part (RFC 2045 §6.7).
_MIXED = b"=_mixed"
_RELATED = b"=_related"
_ALTERNATIVE = b"=_alternative"

_TEXT = b"\0"  # stands for one; nothing else holds it

_types = mimetypes.MimeTypes(filenames=())  # what Python knows, whatever this host has in /etc
_UNKNOWN = "application/octet-stream"


def around(*, has_html: bool, inline: Sequence[bytes], attachments: Sequence[bytes]) -> list[bytes]:
    """Return the Content fields and the content without its texts: what stands before, between and behind them.

    Mixed is around alternative around related, each if needed.
    """
    part = _TEXT
    if has_html:
        html = _multipart(b'related; type="text/html"', _RELATED, [_TEXT, *inline]) if inline else _TEXT
        part = _multipart(b"alternative", _ALTERNATIVE, [part, html])  # the best comes last (RFC 2046 §5.1.4)
    if attachments:
        part = _multipart(b"mixed", _MIXED, [part, *attachments])
    return part.split(_TEXT)


def file(name: str, content: bytes, content_id: str | None) -> bytes:
    """Return an attachment, or with a Content-ID an inline image (RFC 2183, 2392)."""
    kind = _types.guess_type(name)[0] or _UNKNOWN
    if kind.startswith(("message/", "multipart/", "text/")):
        kind = _UNKNOWN  # RFC 2046 §5.2.1 forbids base64 for these; of text the charset is not known
    disposition = f"{'inline' if content_id else 'attachment'}; {headers.filename(name)}"
    fields = [
        headers.field("Content-Type", kind),
        headers.field("Content-Transfer-Encoding", "base64"),
        headers.field("Content-Disposition", disposition),
    ]
    if content_id:
        fields.append(headers.field("Content-ID", headers.message_id(content_id)))
    encoded = base64.encodebytes(content).replace(b"\n", b"\r\n")
    return b"".join(fields) + b"\r\n" + encoded


def _multipart(subtype: bytes, boundary: bytes, parts: Iterable[bytes]) -> bytes:
    pieces = [b'Content-Type: multipart/%s; boundary="%s"\r\n' % (subtype, boundary)]
    for part in parts:
        pieces += (b"\r\n--%s\r\n" % boundary, part)
    pieces.append(b"\r\n--%s--\r\n" % boundary)
    return b"".join(pieces)
