"""Raw mail packed for keeping: what comes together is much alike, so together it takes half the time and the room."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

TOGETHER_OCTETS = 65_536
"""So much mail is packed together: twice as far as zlib looks back, and little to undo for one of them."""

_LEVEL = 1  # the others take longer, and gain a tenth


class Packed(NamedTuple):
    """A mail where it lies: the pack as it is kept, and which of its octets are the mail's once it is undone."""

    pack: bytes
    begin: int
    length: int


class Pack(NamedTuple):
    """Mails packed together: which of some they are, and their octets, one behind the other."""

    mails: range
    octets: bytes


def together(contents: Sequence[bytes]) -> list[Pack]:
    """Return mails packed in order, few enough together; a large one is alone."""
    ends = []
    octets = 0
    for number, content in enumerate(contents):
        if octets and octets + len(content) > TOGETHER_OCTETS:
            ends.append(number)
            octets = 0
        octets += len(content)
    places = itertools.pairwise([0, *ends, len(contents)]) if contents else ()
    return [Pack(range(begin, end), pack(contents[begin:end])) for begin, end in places]


def pack(contents: Iterable[bytes]) -> bytes:
    """Return the octets of mails as those of one pack."""
    return zlib.compress(b"".join(contents), _LEVEL)


def alone(content: bytes) -> Packed:
    """Return a mail in a pack of its own."""
    return Packed(pack([content]), 0, len(content))


def unpack(mail: Packed) -> bytes:
    """Return the mail as it came."""
    return zlib.decompress(mail.pack)[mail.begin : mail.begin + mail.length]


def heads(mails: Iterable[Packed], *, most: int) -> Iterator[bytes]:
    """Yield each mail up to `most` octets. A pack is undone once for those of its mails that follow each other."""
    pack, octets = b"", b""
    for mail in mails:
        if mail.pack is not pack:
            pack, octets = mail.pack, zlib.decompressobj().decompress(mail.pack, most + TOGETHER_OCTETS)
        yield octets[mail.begin : mail.begin + min(mail.length, most)]


def blanked(pack: bytes, places: Iterable[tuple[int, int]]) -> bytes:
    """Return a pack without what stood at `places`, each a beginning and a length; all else keeps its place."""
    octets = bytearray(zlib.decompress(pack))
    for begin, length in places:
        octets[begin : begin + length] = bytes(length)
    return zlib.compress(octets, _LEVEL)
