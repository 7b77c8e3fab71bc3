"""What lies in a POP3 mailbox (RFC 1939 §5, §7), kept small: of a hundred thousand mails few are looked at at once."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import overload

from mailbound.mailbox import Item
from mailbound.mailbox.pop3_client import UnfitReplyError

_DIGITS = 19  # what has fewer is less than 2^63, which is what databases can hold


class Listing(Sequence[Item]):
    """The mails in the order of the server; an `Item` is made when it is asked for."""

    def __init__(self, sizes: bytes, uids: bytes) -> None:
        """Take the bodies of the replies to LIST and UIDL, b"" where there is none. Raises UnfitReplyError."""
        self._numbers, self._sizes, self._uids = array("Q"), array("Q"), bytearray()
        self._ends = array("Q")  # of each mail's uid in all of them
        for number, size in numbered(sizes):
            if not (size.isdigit() and len(size) < _DIGITS):
                raise UnfitReplyError(f"this is no size: {size[:80]!r}")
            self._numbers.append(number)
            self._sizes.append(int(size))
        for uid in _aligned(self._numbers, uids):
            self._uids += uid
            self._ends.append(len(self._uids))

    def __len__(self) -> int:
        """Return how many mails there are."""
        return len(self._numbers)

    @overload
    def __getitem__(self, at: int) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Item]: ...
    def __getitem__(self, at: int | slice) -> Item | Sequence[Item]:
        """Return a mail, or some."""
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        at = range(len(self))[at]
        start = self._ends[at - 1] if at else 0
        uid = self._uids[start : self._ends[at]].decode("utf-8", "replace")
        return Item(self._numbers[at], uid, self._sizes[at])


def numbered(listing: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the pairs of a listing. Raises UnfitReplyError."""
    start = 0
    while (end := listing.find(b"\r\n", start)) >= 0:
        number, value, *_ = [*listing[start:end].split(), b"", b""]
        if not (number.isdigit() and len(number) < _DIGITS and value):
            raise UnfitReplyError(f"this is no line of a listing: {listing[start:end][:80]!r}")
        yield int(number), value
        start = end + 2


def _aligned(numbers: Sequence[int], uids: bytes) -> Iterator[bytes]:
    """Yield the uid of each number, b"" where there is none; both lists are nearly always in the same order."""
    listed = numbered(uids)
    for at, number in enumerate(numbers):
        named, uid = next(listed, (0, b""))
        if named != number:
            by_number = dict(numbered(uids))
            yield from (by_number.get(each, b"") for each in numbers[at:])
            return
        yield uid
