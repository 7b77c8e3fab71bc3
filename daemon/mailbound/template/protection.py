"""Jinja2's tags put out of the way, so that the HTML around them can be worked on once instead of per message.

It is done only where it provably changes nothing that a tag decides: between elements and in plain attribute
values. Elsewhere (in `class`, in a style sheet, around attributes) the answer is None, and the work is left to
each rendered message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import jinja2

_TAG_BEGINS = frozenset(["variable_begin", "block_begin", "comment_begin", "raw_begin"])
_TAG_ENDS = frozenset(["variable_end", "block_end", "comment_end", "raw_end"])
_MARK = re.compile(r"<!--jinja:(\d+)-->|jinja:(\d+):")
_ELEMENT = re.compile(r"</?([a-zA-Z][a-zA-Z0-9]*)")
_MOVED = frozenset(["style"])  # by inlining
_PLAIN = frozenset(
    ["text", "value", "comment", "plain"]
)  # where a tag decides nothing about the HTML around it
_RAW = {
    "style": "raw",
    "script": "raw",
    "title": "plain",
    "textarea": "plain",
}  # elements that hold no others
_DECIDING = frozenset(["class", "id", "style"])  # attributes that a style sheet looks at

_OPENING = re.compile(r"<!--|</?([a-zA-Z][a-zA-Z0-9]*)")
_INSIDE = re.compile(r"""([^\s"'<>/=]+)\s*=\s*(["'])|>""")


@dataclass(frozen=True, slots=True)
class Protected:
    """HTML with a mark in place of each tag."""

    html: str
    tags: tuple[str, ...]

    def restore(self, html: str) -> str:
        """Return `html` with the tags in place of their marks."""
        return _MARK.sub(lambda mark: self.tags[int(mark[1] or mark[2])], html)

    def keeps(self, html: str) -> bool:
        """Return whether `html` has the same marks and elements, each in the same order."""
        return _MARK.findall(html) == _MARK.findall(self.html) and _elements(html) == _elements(self.html)

    def decides_before(self, text: str) -> bool:
        """Return whether a block tag stands before the last `text`, so that it may depend on it."""
        before = self.html[: self.html.rfind(text)]
        return any(self.tags[int(mark[1] or mark[2])].startswith("{%") for mark in _MARK.finditer(before))


def protect(source: str) -> Protected | None:
    """Return `source` with its tags put out of the way, or None if that could change what they do."""
    scanner = _Scanner()
    pieces: list[str] = []
    tags: list[str] = []
    for is_tag, text in _split(source):
        if not is_tag:
            scanner.read(text)
            pieces.append(text)
            continue
        if scanner.state not in _PLAIN or scanner.attribute in _DECIDING:
            return None
        pieces.append(f"<!--jinja:{len(tags)}-->" if scanner.state == "text" else f"jinja:{len(tags)}:")
        tags.append(text)
    html = "".join(pieces)
    return Protected(html, tuple(tags)) if len(_MARK.findall(html)) == len(tags) else None


def _split(source: str) -> list[tuple[bool, str]]:
    """Return the source in pieces, each with whether it is a tag."""
    pieces: list[tuple[bool, str]] = []
    tag: list[str] = []
    for _, token, value in jinja2.Environment(keep_trailing_newline=True, autoescape=True).lex(source):
        if tag or token in _TAG_BEGINS:
            tag.append(value)
            if token in _TAG_ENDS:
                pieces.append((True, "".join(tag)))
                tag = []
        else:
            pieces.append((False, value))
    return [*pieces, (True, "".join(tag))] if tag else pieces


def _elements(html: str) -> list[str]:
    found = (match[0].lower() for match in _ELEMENT.finditer(html))
    return [element for element in found if element.lstrip("</") not in _MOVED]


class _Scanner:
    """Where in an HTML document one is: in text, a tag, an attribute's value, a comment or raw text."""

    def __init__(self) -> None:
        self.state = "text"
        self.attribute = ""
        self._element = ""
        self._quote = ""

    def read(self, html: str) -> None:
        """Go on to the end of `html`."""
        steps = {
            "text": self._text,
            "tag": self._tag,
            "value": self._value,
            "comment": self._comment,
            "raw": self._raw,
            "plain": self._raw,
        }
        position = 0
        while 0 <= position < len(html):
            position = steps[self.state](html, position)

    def _text(self, html: str, position: int) -> int:
        found = _OPENING.search(html, position)
        if not found:
            self.state = "half a tag" if html.endswith(("<", "</")) else "text"
            return -1
        self._element = "" if found[0].startswith("</") else (found[1] or "").lower()
        self.state = "tag" if found[1] else "comment"
        return found.end()

    def _tag(self, html: str, position: int) -> int:
        found = _INSIDE.search(html, position)
        if not found:
            return -1
        if found[2]:
            self.state, self.attribute, self._quote = "value", found[1].lower(), found[2]
        else:
            self.state = _RAW.get(self._element, "text")
        return found.end()

    def _value(self, html: str, position: int) -> int:
        return self._skip(html, position, self._quote, "tag")

    def _comment(self, html: str, position: int) -> int:
        return self._skip(html, position, "-->", "text")

    def _raw(self, html: str, position: int) -> int:
        return self._skip(html, position, f"</{self._element}", "tag")

    def _skip(self, html: str, position: int, end: str, state: str) -> int:
        found = html.lower().find(end, position)
        if found < 0:
            return -1
        self.state, self.attribute, self._element = state, "", ""
        return found + len(end)
