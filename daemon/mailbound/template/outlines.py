"""Many messages of a plain template at once.

Most templates are no more than texts, names and choices. What differs between their messages then stands in columns,
and a column is read, escaped and checked in a few calls, however long it is. Whatever says more is left to Jinja2.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import markupsafe

from mailbound.template import plaintext, sandbox
from mailbound.template.outline import HOLE, Line, Outline
from mailbound.template.sheet import MOST_KEPT, Part, Sheet


class _Lines(NamedTuple):
    """What the parts say once all choices are made."""

    subject: Line
    text: Line
    html: Line | None
    names: Sequence[str]
    """All names that they hold."""


class Outlines:
    """The outlines of a template's parts."""

    def __init__(self, subject: Outline, text: Outline, html: Outline | None, *, laid_out: bool) -> None:
        """Take what the parts say; `laid_out` tells that the text part holds marks for `plaintext.lay_out`."""
        self._subject = subject
        self._text = text
        self._html = html
        self._laid_out = laid_out
        asked = (name for part in (subject, text, html) if part for name in part.choices)
        self._choices = tuple(dict.fromkeys(asked))
        self._kept: dict[tuple[bool, ...], _Lines] = {}

    def sheets(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[Sheet], list[int]]:
        """Return the messages for recipients, each with its values, and the numbers of those whom Jinja2 must serve.

        If somebody lacks a value these are all of them: Jinja2 can say what is missing and where.
        """
        made, served = list[Sheet](), set[int]()
        try:
            for alike, lines in self._alike(rows):
                numbers = [number for number in alike if self._keeps_its_space(rows[number], lines)]
                columns = {name: [str(rows[number][name]) for number in numbers] for name in lines.names}
                if numbers and _is_short(lines, columns):
                    made.append(_sheet(numbers, lines, columns))
                    served.update(numbers)
        except KeyError:
            return [], list(range(len(rows)))
        return made, [number for number in range(len(rows)) if number not in served]

    def _alike(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Sequence[int], _Lines]]:
        """Yield the numbers of rows for which all choices go the same way, and what is said then."""
        if not self._choices:
            yield range(len(rows)), self._lines(())
            return
        alike = defaultdict[tuple[bool, ...], list[int]](list)
        asked = (map(bool, [row[name] for row in rows]) for name in self._choices)
        for number, truths in enumerate(zip(*asked, strict=True)):
            alike[truths].append(number)
        for truths, numbers in alike.items():
            yield numbers, self._lines(truths)

    def _lines(self, truths: tuple[bool, ...]) -> _Lines:
        if lines := self._kept.get(truths):
            return lines
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        by_name = dict(zip(self._choices, truths, strict=True))
        subject, text = self._subject.line(by_name), self._text.line(by_name)
        html = self._html.line(by_name) if self._html else None
        if self._laid_out:
            text = Line(tuple(plaintext.lay_out(HOLE.join(text.texts)).split(HOLE)), text.names)
        names = dict.fromkeys((*subject.names, *text.names, *(html.names if html else ())))
        lines = self._kept[truths] = _Lines(subject, text, html, tuple(names))
        return lines

    def _keeps_its_space(self, row: Mapping[str, Any], lines: _Lines) -> bool:
        """Return whether the space that was laid out stays as it is around somebody's values."""
        if not self._laid_out:
            return True
        values = [str(row[name]) for name in lines.text.names]
        return all(values) and not plaintext.has_space_of_its_own(values)


def _is_short(lines: _Lines, columns: Mapping[str, Sequence[str]]) -> bool:
    """Return whether no message can be too long."""
    longest = sum(max(map(len, column)) for column in columns.values())
    parts = (line for line in (lines.subject, lines.text, lines.html) if line)
    return all(
        sum(map(len, line.texts)) + len(line.names) * longest <= sandbox.LARGEST_OUTPUT for line in parts
    )


def _sheet(numbers: Sequence[int], lines: _Lines, columns: Mapping[str, Sequence[str]]) -> Sheet:
    subjects = _part(lines.subject, columns)
    html = None
    if lines.html:
        escaped = {name: _escaped(columns[name]) for name in dict.fromkeys(lines.html.names)}
        html = _part(lines.html, escaped)
    return Sheet(
        numbers,
        [" ".join(subjects.whole(row).split()) for row in range(len(numbers))],
        _part(lines.text, columns),
        html,
    )


def _part(line: Line, columns: Mapping[str, Sequence[str]]) -> Part:
    return Part(line.texts, [columns[name] for name in line.names])


def _escaped(column: Sequence[str]) -> Sequence[str]:
    """Return a column as it is written in HTML."""
    joined = "\n".join(column)
    escaped = str(markupsafe.escape(joined))
    if len(escaped) == len(joined):
        return column
    lines = escaped.split("\n")
    return lines if len(lines) == len(column) else [str(markupsafe.escape(value)) for value in column]
