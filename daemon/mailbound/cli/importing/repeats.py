"""Which external_ids a file has more than once, found in memory that does not grow with the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_SMALLEST, _LARGEST = 16, 28  # bits of a hash: 8 KiB to 32 MiB are kept


def repeated(external_ids: Iterable[str], *, octets: int) -> set[str]:
    """Return those that come more than once, of a file of so many octets; a few others may be among them.

    Two bits are all that is kept of an external_id (a Bloom filter). Of ten million about one in 200 is returned
    needlessly.
    """
    mask = (1 << min(_LARGEST, max(_SMALLEST, octets.bit_length() + 1))) - 1
    bits = bytearray((mask + 1) // 8)
    return set(_seen_before(external_ids, bits, mask))


def _seen_before(external_ids: Iterable[str], bits: bytearray, mask: int) -> Iterator[str]:
    for external_id in external_ids:
        value = hash(external_id)
        one, two = value & mask, (value >> 32) & mask
        if bits[one >> 3] >> (one & 7) & 1 and bits[two >> 3] >> (two & 7) & 1:
            yield external_id
        bits[one >> 3] |= 1 << (one & 7)
        bits[two >> 3] |= 1 << (two & 7)
