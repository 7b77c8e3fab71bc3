"""Raw mail packed together: each comes out as it went in, and what is forgotten leaves no trace."""

from __future__ import annotations

import zlib

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from mailbound import packing
from mailbound.database import inbound_mail, raw_mail, tables
from mailbound.database.inbound_mail import Arrival
from mailbound.packing import TOGETHER_OCTETS, Packed
from world import NOW, World, world

MAIL = b"To: person-%d@example.org\r\n\r\nIt could not be delivered.\r\n"


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([], []),
        ([0], [range(1)]),
        ([1, 2, 3], [range(3)]),
        ([TOGETHER_OCTETS - 1, 1, 1], [range(2), range(2, 3)]),
        ([10 * TOGETHER_OCTETS, 1, 2], [range(1), range(1, 3)]),
        ([1, 10 * TOGETHER_OCTETS], [range(1), range(1, 2)]),
    ],
    ids=["none", "an empty one", "few", "as many as fit", "a large one first", "a large one last"],
)
def test_mails_are_packed_together_until_they_are_many_octets(
    lengths: list[int], expected: list[range]
) -> None:
    assert [pack.mails for pack in packing.together([bytes(length) for length in lengths])] == expected


@given(st.lists(st.binary(max_size=200), min_size=1), st.integers(1, 300))
def test_each_mail_of_a_pack_comes_out_as_it_went_in(contents: list[bytes], most: int) -> None:
    pack = packing.pack(contents)
    begins = [sum(map(len, contents[:number])) for number in range(len(contents))]
    mails = [Packed(pack, begin, len(content)) for begin, content in zip(begins, contents, strict=True)]
    assert list(map(packing.unpack, mails)) == contents
    assert list(packing.heads(mails, most=most)) == [content[:most] for content in contents]


def test_of_a_pack_its_beginning_is_enough_to_read_the_first_mails() -> None:
    content = MAIL % 1 + bytes(range(256)) * 1000
    cut = packing.alone(content)._replace(pack=packing.alone(content).pack[:4096])
    assert next(packing.heads([cut], most=100)) == content[:100]


def test_what_is_blanked_is_gone_and_all_else_keeps_its_place() -> None:
    pack = packing.blanked(packing.pack([b"one", b"two", b"three"]), [(3, 3)])
    assert zlib.decompress(pack) == b"one\0\0\0three"


def keep(here: World, *contents: bytes) -> int:
    """Keep mails that came together, and return how many are new."""
    arrivals = [Arrival(str(hash(content)), content, len(content), truncated=False) for content in contents]
    store_id = here.stores["main"]
    packs = packing.together(contents)
    return inbound_mail.keep(here.connection, store_id, arrivals, now=NOW, packs=packs)


def kept(here: World) -> list[bytes | None]:
    """Return the octets of all mails, in order; None for those that were forgotten."""
    numbers = here.connection.execute(sa.select(tables.inbound_mail.c.id).order_by("id")).scalars().all()
    return [inbound_mail.find_raw(here.connection, number) for number in numbers]


def packs(here: World) -> list[bytes]:
    """Return what is in the packs, in order."""
    query = sa.select(tables.inbound_pack.c.content).order_by(tables.inbound_pack.c.id)
    return [zlib.decompress(content) for content in here.connection.execute(query).scalars()]


def test_what_came_together_lies_together(database_url: str) -> None:
    with world(database_url) as here:
        mails = [MAIL % number for number in range(3)]
        large = b"x" * TOGETHER_OCTETS
        assert keep(here, *mails, large) == 4
        assert kept(here) == [*mails, large]
        assert packs(here) == [b"".join(mails), large]


def test_of_what_was_kept_before_nothing_is_kept_again(database_url: str) -> None:
    with world(database_url) as here:
        assert keep(here, MAIL % 1) == 1
        assert keep(here, MAIL % 2, MAIL % 1, MAIL % 2, MAIL % 3) == 2
        assert keep(here, MAIL % 3, MAIL % 1) == 0
        assert kept(here) == [MAIL % 1, MAIL % 2, MAIL % 3]
        assert packs(here) == [MAIL % 1, MAIL % 2 + MAIL % 3]


def test_what_is_forgotten_leaves_no_octet_behind_and_the_others_as_they_are(database_url: str) -> None:
    with world(database_url) as here:
        keep(here, *(MAIL % number for number in range(4)))
        keep(here, MAIL % 4)
        one, two, three, four, five = here.connection.execute(
            sa.select(tables.inbound_mail.c.id).order_by("id")
        ).scalars()
        assert raw_mail.forget(here.connection, [two, five]) == 2
        assert kept(here) == [MAIL % 0, None, MAIL % 2, MAIL % 3, None]
        assert [pack.count(b"person") for pack in packs(here)] == [3]
        taken = raw_mail.taken(here.connection, [two, three, five])
        assert {number: packing.unpack(mail) for number, mail in taken.items()} == {three: MAIL % 2}
        assert raw_mail.forget(here.connection, [one, two, three, four]) == 3
        assert packs(here) == []
        assert raw_mail.forget(here.connection, [one]) == 0
