"""Importing people from a file: records, people, faults, and the loop that brings them to the database.

A file is read twice. The first time finds which external_ids come more than once, in memory that does not grow
with the file; the second imports, and keeps the repeated ones back until the end, so that the last line about a
person wins, and so that importing the same file again changes nothing.
"""

from __future__ import annotations

import contextlib
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from mailbound.cli.importing import records
from mailbound.cli.importing.faults import Faults
from mailbound.cli.importing.people import Reader
from mailbound.database.engine import Database
from mailbound.database.imports import BATCH, Counts, Import, Person
from mailbound.errors import InputError

Moved = Callable[[int], None]


@dataclass(slots=True)
class Summary:
    """What an import did. Read is new, changed, unchanged, erased, repeated and faulty rows together."""

    read: int = 0
    repeated: int = 0
    counts: Counts = field(default_factory=Counts)


@contextlib.contextmanager
def opened(source: str) -> Iterator[BinaryIO]:
    """Give a file that can be read twice; `-` is standard input. Raises InputError if it cannot be read."""
    try:
        with contextlib.ExitStack() as stack:
            if source == "-":
                yield stack.enter_context(_spooled(sys.stdin.buffer))
                return
            file = stack.enter_context(Path(source).open("rb"))
            regular = stat.S_ISREG(Path(source).stat().st_mode)
            yield file if regular else stack.enter_context(_spooled(file))
    except OSError as error:
        raise InputError(f"{source}: {error.strerror or error}") from error


@contextlib.contextmanager
def _spooled(stream: BinaryIO) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        yield copy


def size_of(stream: BinaryIO) -> int:
    """Return how many octets a file has."""
    return stream.seek(0, 2)


def repeated(stream: BinaryIO, form: str, reader: Reader, *, moved: Moved) -> set[str]:
    """Return the external_ids that come more than once; a few others may be among them.

    A bit for each of two hashes is all that is kept of an external_id, so 32 MiB do for any file.
    """
    mask = (1 << min(28, max(16, size_of(stream).bit_length() + 1))) - 1
    bits = bytearray((mask + 1) // 8)
    found = set()
    for record in _following(records.read(stream, form), stream, moved):
        if isinstance(record.fields, records.Fault):
            continue
        external_id = reader.external_id(record.fields)
        value = hash(external_id)
        one, two = value & mask, (value >> 32) & mask
        if bits[one >> 3] >> (one & 7) & 1 and bits[two >> 3] >> (two & 7) & 1:
            found.add(external_id)
        bits[one >> 3] |= 1 << (one & 7)
        bits[two >> 3] |= 1 << (two & 7)
    return found


def run(
    database: Database,
    stream: BinaryIO,
    form: str,
    *,
    reader: Reader,
    import_: Import,
    faults: Faults,
    held_back: set[str],
    moved: Moved,
) -> Summary:
    """Bring the people of a file to the database, a batch in a transaction."""
    summary = Summary()
    people = _people(
        _following(records.read(stream, form), stream, moved), reader, faults, held_back, summary
    )
    for batch in _batches(people):
        with database.begin() as connection:
            counts = import_.apply(connection, batch)
        summary.counts.add(counts)
    return summary


def _people(
    rows: Iterable[records.Record], reader: Reader, faults: Faults, held_back: set[str], summary: Summary
) -> Iterator[Person]:
    """Give each person of a file once; those that may come again at the end, as their last line has them."""
    last: dict[str, Person] = {}
    for line, fields, text in rows:
        summary.read += 1
        if isinstance(fields, records.Fault):
            faults.add(line, fields.reason, text)
            continue
        try:
            person = reader.person(fields)
        except InputError as error:
            faults.add(line, str(error), text)
            continue
        if person.external_id not in held_back:
            yield person
            continue
        summary.repeated += person.external_id in last
        last[person.external_id] = person
    yield from last.values()


def _batches(people: Iterable[Person]) -> Iterator[list[Person]]:
    batch: list[Person] = []
    for person in people:
        batch.append(person)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _following(rows: Iterator[records.Record], stream: BinaryIO, moved: Moved) -> Iterator[records.Record]:
    """Give the same rows, and say now and then how many octets were read."""
    at = 0
    for count, row in enumerate(rows):
        if count % BATCH == 0:
            now = stream.tell()
            moved(now - at)
            at = now
        yield row
    moved(stream.tell() - at)
