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

_types = mimetypes.MimeTypes(filenames=())  # what Python knows, whatever this host has in /etc
_UNKNOWN = "application/octet-stream"


def body(
    plain: list[bytes], html: list[bytes] | None, inline: Sequence[bytes], attachments: Sequence[bytes]
) -> list[bytes]:
    """Return the Content fields and the content: mixed around alternative around related, each if needed.

    Texts come and go in pieces, to be joined once.
    """
    part = plain
    if html is not None:
        if inline:
            html = _multipart(b'related; type="text/html"', _RELATED, [html, *([image] for image in inline)])
        part = _multipart(b"alternative", _ALTERNATIVE, [part, html])  # the best comes last (RFC 2046 §5.1.4)
    if attachments:
        part = _multipart(b"mixed", _MIXED, [part, *([file] for file in attachments)])
    return part


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


def _multipart(subtype: bytes, boundary: bytes, parts: Iterable[list[bytes]]) -> list[bytes]:
    pieces = [b'Content-Type: multipart/%s; boundary="%s"\r\n' % (subtype, boundary)]
    for part in parts:
        pieces.append(b"\r\n--%s\r\n" % boundary)
        pieces += part
    pieces.append(b"\r\n--%s--\r\n" % boundary)
    return pieces
