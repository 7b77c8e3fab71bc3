"""The body of a message as MIME parts (RFC 2045, 2046, 2387). All of it is 7-bit, in lines of at most 76 octets."""

from __future__ import annotations

import base64
import binascii
import functools
import mimetypes
from collections.abc import Iterable, Sequence

from mailbound.message import headers
from mailbound.message.headers import MessageFault

# `=_` occurs in neither quoted-printable nor base64, so these occur in no part (RFC 2045 §6.7).
_MIXED = b"=_mixed"
_RELATED = b"=_related"
_ALTERNATIVE = b"=_alternative"

_types = mimetypes.MimeTypes(filenames=())  # what Python knows, whatever this host has in /etc
_UNKNOWN = "application/octet-stream"

_KNOWN = 1_000  # characters of the longest line that is kept encoded


def body(plain: str, html: str | None, inline: Sequence[bytes], attachments: Sequence[bytes]) -> bytes:
    """Return the Content fields and the content: mixed around alternative around related, each if needed."""
    part = text("plain", plain)
    if html is not None:
        rich = text("html", html)
        if inline:
            rich = _multipart(b'related; type="text/html"', _RELATED, [rich, *inline])
        part = _multipart(b"alternative", _ALTERNATIVE, [part, rich])  # the best comes last (RFC 2046 §5.1.4)
    return _multipart(b"mixed", _MIXED, [part, *attachments]) if attachments else part


def text(subtype: str, content: str) -> bytes:
    """Return a text part in quoted-printable. Raises MessageFault for what UTF-8 cannot say."""
    if "\r" in content:
        content = content.replace("\r\n", "\n").replace("\r", "\n")
    head = (
        f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    )
    lines = content.removesuffix("\n").split("\n")
    try:
        encoded = [_known_line(line) if len(line) <= _KNOWN else _line(line) for line in lines]
    except UnicodeEncodeError:
        raise MessageFault(f"the {subtype} part holds half a surrogate pair") from None
    return head.encode() + b"".join(encoded)


def file(name: str, content: bytes, content_id: str | None) -> bytes:
    """Return an attachment, or with a Content-ID an inline image (RFC 2183, 2392)."""
    kind = _types.guess_type(name)[0] or _UNKNOWN
    if kind.startswith(("message/", "multipart/", "text/")):
        kind = _UNKNOWN  # RFC 2046 §5.2.1 forbids base64 for these; of text the charset is not known
    disposition = f"{'inline' if content_id else 'attachment'}; {headers.filename(name)}"
    fields = headers.field("Content-Type", kind) + headers.field("Content-Transfer-Encoding", "base64")
    names = [b"Content-Type", b"Content-Transfer-Encoding", b"Content-Disposition"]
    fields += headers.field("Content-Disposition", disposition)
    if content_id:
        fields += headers.field("Content-ID", headers.message_id(content_id))
        names.append(b"Content-ID")
    encoded = base64.encodebytes(content).replace(b"\n", b"\r\n")
    return headers.verify(fields, names) + b"\r\n" + encoded


def _line(line: str) -> bytes:
    """Return a line in quoted-printable, with its end; each line is encoded for itself (RFC 2045 §6.7)."""
    return binascii.b2a_qp(line.encode() + b"\r\n", istext=True)


_known_line = functools.lru_cache(4096)(_line)
"""Most lines of a template are the same for everybody: to look them up costs a tenth of encoding them."""


def _multipart(subtype: bytes, boundary: bytes, parts: Iterable[bytes]) -> bytes:
    opening = b"--" + boundary + b"\r\n"
    return b"".join(
        (
            b"Content-Type: multipart/" + subtype + b'; boundary="' + boundary + b'"\r\n\r\n' + opening,
            (b"\r\n" + opening).join(parts),
            b"\r\n--" + boundary + b"--\r\n",
        )
    )
