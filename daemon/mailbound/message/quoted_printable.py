"""Quoted-printable (RFC 2045 §6.7), in which no line begins with a dot: no relay can take one for its own."""

from __future__ import annotations

import binascii
from collections.abc import Sequence

SOFT = b"=\r\n"
"""A line break that is not of the text."""

WIDTH = 76
"""How many octets a line may have, a soft break's mark among them."""

_DOT = ord(".")
_BLANK = frozenset(b" \t")
_PLAIN = frozenset(range(0x21, 0x7F)) - frozenset(b"=")


def line(text: str) -> bytes:
    """Return a line of text without its end, broken if it is long.

    Raises UnicodeEncodeError for what UTF-8 cannot say.
    """
    octets = text.encode() + b"\r\n"
    encoded = binascii.b2a_qp(octets, istext=True)
    if encoded.startswith(b".") or b"\n." in encoded or encoded.endswith((b"=20\r\n", b"=09\r\n")):
        return _carefully(octets[:-2])
    return encoded[:-2]


def lines(texts: Sequence[str]) -> list[bytes] | None:
    """Return many texts as `line` would return each; None if one is long, begins with a dot or is no line."""
    joined = "\n".join(texts)
    encoded = binascii.b2a_qp(joined.encode(), istext=True)
    if "\r" in joined or encoded.startswith(b".") or b"\n." in encoded or b"=\n" in encoded:
        return None
    separated = encoded.split(b"\n")
    return separated if len(separated) == len(texts) else None


def broken(encoded: bytes) -> bytes:
    """Return a piece of a line, not empty, with a soft break behind it."""
    if len(encoded) - (encoded.rfind(b"\n") + 1) < WIDTH:
        return encoded + SOFT
    at = -3 if encoded[-3:-2] == b"=" else -1  # the last character makes room for the mark
    last = b"=2E" if encoded[at:] == b"." else encoded[at:]
    return encoded[:at] + SOFT + last + SOFT


def _carefully(octets: bytes) -> bytes:
    """Encode a dot that begins a line, too; `binascii` does not, and makes a line too long that ends with a space."""
    lines = [b""]
    for position, octet in enumerate(octets, 1):
        plain = octet in _PLAIN and not (octet == _DOT and not lines[-1])
        if octet in _BLANK:
            plain = position < len(octets)
        written = bytes((octet,)) if plain else b"=%02X" % octet
        if len(lines[-1]) + len(written) > WIDTH - 1:
            lines.append(b"")
            written = b"=2E" if octet == _DOT else written
        lines[-1] += written
    return SOFT.join(lines)
