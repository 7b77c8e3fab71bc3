"""A mail together with its lines: its fields, its words and its identifiers, each with the places where they stand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from mailbound.reading import dsn, phrases
from mailbound.reading.layout import Line, Zone
from mailbound.reading.mail import RETURNED_TYPES, Mail
from mailbound.reading.once import Once
from mailbound.reading.places import Stretch, Text, stripped

_FIELD = re.compile(r"([!-9;-~]{1,200})[ \t]*:")
_IDENTIFIERS = ("message-id", "original-envelope-id")


@dataclass(frozen=True, slots=True)
class Field:
    """A field: its name in lower case, where its value stands on each of its lines, and the value unfolded.

    One without a name stands for an empty line.
    """

    name: str
    lines: tuple[Stretch, ...]
    value: str

    def whole(self, lines: Sequence[Line]) -> Iterator[Stretch]:
        """Yield its lines with its name."""
        return (stripped(index, lines[index].text, 0, len(lines[index].text)) for index, _, _ in self.lines)


class Page:
    """A mail and its lines. Everything is worked out when first asked for."""

    def __init__(self, mail: Mail, lines: tuple[Line, ...]) -> None:
        """Take a mail, and the same as `layout.lay_out` returns it."""
        self.mail = mail
        self.lines = lines

    @Once
    def header(self) -> list[Field]:
        """Return the fields of the mail itself."""
        return self.fields(self.of(Zone.HEADER))

    def of(self, zone: Zone, parts: Sequence[int] | None = None) -> list[int]:
        """Return which lines are of a zone: of any part, or of these."""
        wanted = None if parts is None else frozenset(parts)
        return [
            index
            for index, line in enumerate(self.lines)
            if line.zone is zone and (wanted is None or line.part in wanted)
        ]

    def parts(self, types: AbstractSet[str]) -> list[int]:
        """Return which leaves are of these types."""
        return [index for index, leaf in enumerate(self.mail.leaves) if leaf.content_type in types]

    def fields(self, indexes: Sequence[int]) -> list[Field]:
        """Return the fields on these lines, and one without a name for each empty line."""
        found: list[Field] = []
        for index in indexes:
            text = self.lines[index].text
            match = _FIELD.match(text)
            if not text.strip():
                found.append(Field("", (), ""))
            elif match:
                found.append(_field(match[1], stripped(index, text, match.end(), len(text)), text))
            elif text[0] in " \t" and found and found[-1].name:
                last = found[-1]
                lines = (*last.lines, stripped(index, text, 0, len(text)))
                found[-1] = Field(last.name, lines, f"{last.value} {text.strip()}"[: dsn.FIELD_LIMIT])
        return found

    def groups(self, indexes: Sequence[int]) -> list[list[Field]]:
        """Return the groups of fields on these lines, as `dsn.split` parts them."""
        groups: list[list[Field]] = [[]]
        for field in self.fields(indexes):
            again = field.name in dsn.OF_RECIPIENT and any(field.name == one.name for one in groups[-1])
            if again or not field.name:
                groups.append([])
            if field.name:
                groups[-1].append(field)
        return [group for group in groups if group]

    @Once
    def words(self) -> Text:
        """Return what the mail itself says, as its readers see it: up to the message that it gives back."""
        parts: list[int] = []
        for number, leaf in enumerate(self.mail.leaves):
            if leaf.content_type in RETURNED_TYPES:
                break
            if leaf.text:
                parts.append(number)
        text = Text(self.lines, self.of(Zone.BODY, parts))
        cut = phrases.RETURNED_BELOW.search("\n" + text.small)
        return text.before(cut.start()) if cut else text

    @Once
    def everything(self) -> Text:
        """Return the same with the messages that it gives back."""
        return Text(self.lines, self.of(Zone.BODY))

    @Once
    def identifiers(self) -> list[Stretch]:
        """Return where the body names the message or the envelope that it speaks of, each with a line behind it."""
        found: list[Stretch] = []
        is_open = False
        for index in self.of(Zone.BODY):
            text = self.lines[index].text
            names_one = any(name in text.lower() for name in _IDENTIFIERS)
            if names_one or (is_open and text[:1] in {" ", "\t"}):
                found.append((index, 0, len(text)))
            is_open = names_one
        return found


def _field(name: str, stretch: Stretch, text: str) -> Field:
    return Field(name.lower(), (stretch,), text[stretch[1] : stretch[2]])
