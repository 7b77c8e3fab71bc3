"""The body of a message as MIME parts (RFC 2045, 2046, 2387). All of it is 7-bit, in lines of at most 76 octets."""

from __future__ import annotations

import base64
import binascii
import mimetypes
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mailbound.message import headers
from mailbound.message.headers import MessageFault

# `=_` occurs in neither quoted-printable nor base64, so these occur in no part (RFC 2045 §6.7).
_MIXED = b"=_mixed"
_RELATED = b"=_related"
_ALTERNATIVE = b"=_alternative"

_types = mimetypes.MimeTypes(filenames=())  # what Python knows, whatever this host has in /etc
_UNKNOWN = "application/octet-stream"

_TEXT_HEAD = b"Content-Type: text/%s; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
_QP_WIDTH = 76  # RFC 2045 §6.7
_SOFT = b"=\r\n"
_WORTH_A_BREAK = 24  # characters
_QP_PLAIN = frozenset(range(0x21, 0x7F)) - frozenset(b"=.")


class _Known(NamedTuple):
    """A text of a template that holds an end of a line, encoded as far as what stands around it does not matter."""

    end: str | None  # of the line that it begins in; None if it stands in what is encoded
    encoded: bytes
    beginning: str  # of the line that it ends in; "" if that, too, stands there


class Text:
    """Writes text parts in quoted-printable; the texts of a template are encoded once, and then only looked up.

    A soft line break parts a long one from what is filled in beside it.
    """

    def __init__(self, subtype: str, constants: Iterable[str]) -> None:
        """Encode `constants`, which messages will hold unchanged. Raises MessageFault as `encode` does."""
        self._subtype = subtype
        self._head = _TEXT_HEAD % subtype.encode()
        self._known = {
            text: self._cut(text, breaks=True) for text in constants if "\n" in text and "\r" not in text
        }

    def encode(self, pieces: Sequence[str]) -> bytes:
        """Return the part that holds `pieces`, one after the other.

        No line of it begins with a dot. Raises MessageFault for what UTF-8 cannot say.
        """
        encoded = [self._head]
        begun: list[str] = []  # what is not encoded yet of the line under way
        for piece in pieces:
            known = self._known.get(piece)
            if known is None:
                if "\r" in piece:  # its LF may stand in the next piece
                    return self.encode([_newlines("".join(pieces))])
                if "\n" not in piece:
                    begun.append(piece)
                    continue
                known = self._cut(piece, breaks=False)
            if known.end is not None:
                begun.append(known.end)
                encoded.append(self._octets("".join(begun)) + b"\r\n")
            elif begun:
                encoded.append(self._broken("".join(begun)))
            encoded.append(known.encoded)
            begun = [known.beginning] if known.beginning else []
        rest = "".join(begun)
        if rest or encoded[-1].endswith(_SOFT) or len(encoded) == 1:
            encoded.append(self._octets(rest) + b"\r\n")
        return b"".join(encoded)

    def _cut(self, text: str, *, breaks: bool) -> _Known:
        """Return what is known of a text with a line end in it, long ends parted from it by `breaks`."""
        end: str | None
        end, *lines, beginning = str.split(text, "\n")  # it may be Markup, whose own methods take their time
        encoded = [self._octets(line) + b"\r\n" for line in lines]
        if breaks and len(end) >= _WORTH_A_BREAK:
            encoded.insert(0, self._octets(end) + b"\r\n")
            end = None
        if breaks and len(beginning) >= _WORTH_A_BREAK:
            encoded.append(self._broken(beginning))
            beginning = ""
        return _Known(end, b"".join(encoded), beginning)

    def _octets(self, line: str) -> bytes:
        """Return a line in quoted-printable, without its end; each is encoded for itself (RFC 2045 §6.7)."""
        try:
            octets = line.encode() + b"\r\n"
        except UnicodeEncodeError:
            raise MessageFault(f"the {self._subtype} part holds half a surrogate pair") from None
        encoded = binascii.b2a_qp(octets, istext=True)
        if encoded.startswith(b".") or b"\n." in encoded or encoded.endswith((b"=20\r\n", b"=09\r\n")):
            return _carefully(octets[:-2])
        return encoded[:-2]

    def _broken(self, text: str) -> bytes:
        """Return a piece of a line with a soft break behind it."""
        encoded = self._octets(text)
        if len(encoded) - (encoded.rfind(b"\n") + 1) < _QP_WIDTH:
            return encoded + _SOFT
        at = -3 if encoded[-3:-2] == b"=" else -1  # the last character makes room for the mark
        last = b"=2E" if encoded[at:] == b"." else encoded[at:]
        return encoded[:at] + _SOFT + last + _SOFT


def _carefully(line: bytes) -> bytes:
    """Return a line in quoted-printable, its dots encoded too, so that no relay can take one for its own.

    `binascii` does not do that, and makes a line too long that ends with a space.
    """
    lines = [b""]
    for octet in line:
        written = bytes((octet,)) if octet in _QP_PLAIN else b"=%02X" % octet
        if len(lines[-1]) + len(written) > _QP_WIDTH - 1:
            lines.append(b"")
        lines[-1] += written
    return _SOFT.join(lines)


def _newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def body(plain: bytes, html: bytes | None, inline: Sequence[bytes], attachments: Sequence[bytes]) -> bytes:
    """Return the Content fields and the content: mixed around alternative around related, each if needed."""
    part = plain
    if html is not None:
        if inline:
            html = _multipart(b'related; type="text/html"', _RELATED, [html, *inline])
        part = _multipart(b"alternative", _ALTERNATIVE, [part, html])  # the best comes last (RFC 2046 §5.1.4)
    return _multipart(b"mixed", _MIXED, [part, *attachments]) if attachments else part


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
    opening = b"--" + boundary + b"\r\n"
    return b"".join(
        (
            b"Content-Type: multipart/" + subtype + b'; boundary="' + boundary + b'"\r\n\r\n' + opening,
            (b"\r\n" + opening).join(parts),
            b"\r\n--" + boundary + b"--\r\n",
        )
    )
