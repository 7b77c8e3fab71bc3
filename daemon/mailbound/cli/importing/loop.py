"""The loops that bring a file to the database, a batch in a transaction."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TypeVar

from mailbound.cli import terminal
from mailbound.cli.importing import people, records, repeats, source
from mailbound.cli.importing.faults import Faults
from mailbound.cli.importing.source import File
from mailbound.database import segments, stores
from mailbound.database.engine import Database
from mailbound.database.imports import BATCH, Counts, Import, Person
from mailbound.errors import InputError

T = TypeVar("T")
_FOLD_EVERY = 50  # batches; they write some 200 MB to SQLite's log, most of it the index of addresses


@dataclass(slots=True)
class Summary:
    """What an import did. The rows read are new, changed, unchanged, erased, repeated and faulty ones together."""

    read: int = 0
    repeated: int = 0  # a later row about the same person won
    faults: int = 0
    faults_file: str = ""
    first_faults: list[tuple[int, str]] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)

    def numbers(self) -> dict[str, int]:
        """Return all counts by their names."""
        counts = asdict(self.counts)
        turned = {name: counts.pop(name) for name in ("opted_in", "opted_out")}
        return {"read": self.read, **counts, "repeated": self.repeated, "faults": self.faults, **turned}


def import_file(
    database: Database,
    file: File,
    *,
    mapped: Sequence[str],
    as_text: Sequence[str],
    store: str | None,
    who: str,
    now: datetime,
) -> Summary:
    """Bring the people of a file to the database.

    Raises InputError, before anything was written, if it cannot be read or lacks a column that it must have.
    """
    form = file.form or records.format_of(file.name, file.stream)
    head = records.head(file.stream) if form == records.CSV else None
    reader = people.Reader(people.columns(mapped), head=head, as_text=as_text, now=now)
    store_id = _store_id(database, store, needed=reader.has_opt_in, asked=head is not None)
    import_ = Import(store_id=store_id, who=who, now=now)
    repeated = _repeated(file, form, reader)
    faults = Faults(file.name)
    summary = Summary()
    with terminal.progress(f"importing {file.name}", file.octets(), octets=True) as advance:
        rows = source.watched(records.read(file.stream, form), file.stream, advance)
        with contextlib.closing(faults):
            for number, batch in enumerate(batches(_people(rows, reader, faults, repeated, summary)), 1):
                with database.begin() as connection:
                    summary.counts.add(import_.apply(connection, batch))
                if number % _FOLD_EVERY == 0:
                    _fold(database)
    summary.faults, summary.first_faults, summary.faults_file = faults.count, faults.first, str(faults.path)
    return summary


def import_list(database: Database, file: File, name: str, *, now: datetime) -> Faults:
    """Make a segment of the recipients whom a file names; return the lines that name nobody.

    Raises InputError if the segment's name is taken, or the file cannot be read.
    """
    with database.begin() as connection:
        segment_id = segments.begin_list(connection, name, now=now)
    faults = Faults(file.name)
    with terminal.progress(f"reading {file.name}", file.octets(), octets=True) as advance:
        rows = source.watched(records.first_column(file.stream), file.stream, advance)
        with contextlib.closing(faults):
            for batch in batches(_names(rows, faults)):
                with database.begin() as connection:
                    unknown = segments.add(connection, segment_id, [each for _, each, _ in batch])
                for line, each, text in batch:
                    if each in unknown:
                        faults.add(line, f"there is no recipient {each!r}", text)
    with database.begin() as connection:
        segments.end_list(connection, segment_id, name)
    return faults


def batches(items: Iterable[T]) -> Iterator[list[T]]:
    """Give the items in lists of `BATCH`, the last one shorter."""
    rest = iter(items)
    while batch := list(itertools.islice(rest, BATCH)):
        yield batch


def _store_id(database: Database, name: str | None, *, needed: bool, asked: bool) -> int:
    """Return the store whose opt-ins a file has: the one that was named, or the only one there is."""
    with database.look() as connection:
        numbers = stores.numbers(connection)
        if name is not None:
            if not needed:
                raise InputError(f"--store {name}: the file has no column opt_in; use --map opt_in=COLUMN")
            return stores.number(connection, name)
    only = [number for number in numbers.values() if number != stores.ALL_ID]
    if len(only) != 1 and needed:
        names = ", ".join(sorted(numbers))
        column = "has a column opt_in" if asked else "may say opt_in"
        raise InputError(f"the file {column}: say for which store with --store: {names}")
    return only[0] if only else stores.ALL_ID


def _repeated(file: File, form: str, reader: people.Reader) -> set[str]:
    with terminal.progress(f"looking through {file.name}", file.octets(), octets=True) as advance:
        rows = source.watched(records.read(file.stream, form), file.stream, advance)
        ids = (reader.external_id(row.fields) for row in rows if not isinstance(row.fields, records.Fault))
        return repeats.repeated(ids, octets=file.octets())


def _people(
    rows: Iterable[records.Record],
    reader: people.Reader,
    faults: Faults,
    repeated: set[str],
    summary: Summary,
) -> Iterator[Person]:
    """Give each person of a file once; those that may come again at the end, as their last row has them."""
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
        if person.external_id not in repeated:
            yield person
            continue
        summary.repeated += person.external_id in last
        last[person.external_id] = person
    yield from last.values()


def _names(rows: Iterable[records.Record], faults: Faults) -> Iterator[tuple[int, str, str]]:
    for line, fields, text in rows:
        if isinstance(fields, records.Fault):
            faults.add(line, fields.reason, text)
        else:
            yield line, fields[records.FIRST], text


def _fold(database: Database) -> None:
    """Let go of all connections, since SQLite folds its log into the file when the last one is closed.

    A daemon that has the file open does this itself, and then this does nothing; without one the log of a large
    import would outgrow the database many times.
    """
    if database.is_sqlite:
        database.release()
