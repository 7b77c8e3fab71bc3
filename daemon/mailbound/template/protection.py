"""Jinja2's tags put out of the way, so that the HTML around them can be worked on once instead of per message.

It is done only where it provably changes nothing that a tag decides: between elements and in plain attribute
values. Elsewhere (in `class`, in a style sheet, around attributes) the answer is None, and the work is left to
each rendered message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import unescape

import jinja2

_TAG_BEGINS = frozenset(["variable_begin", "block_begin", "comment_begin", "raw_begin"])
_TAG_ENDS = frozenset(["variable_end", "block_end", "comment_end", "raw_end"])

VOID = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"]
)
"""The elements without content."""

BRACES = re.compile(r"\{[{%#]")
"""How a tag begins; what says so after the work was no tag before it, but a character reference."""

# What makes HTML of a value, or brings HTML from another file, is only known when it is rendered.
_MAKES_HTML = re.compile(
    r"\|\s*(?:e|escape|forceescape|safe|tojson|urlize|xmlattr)\b"
    r"|^\{%[-+]?\s*(?:autoescape|block|call|extends|filter|from|import|include|macro)\b"
)
_MARK = re.compile(r"<!--jinja:(\d+)-->|jinja:(\d+):")
_NODE = re.compile(
    r"<!--jinja:(?P<mark>\d+)-->|</(?P<end>[a-zA-Z][a-zA-Z0-9]*)|<(?P<begin>[a-zA-Z][a-zA-Z0-9]*)"
)
_COMMENT = re.compile(r"<!--(?!jinja:\d+-->).*?-->", re.DOTALL)
_WORD = re.compile(r"\{%[-+]?\s*(\w+)")
_BLOCK = "{%"
_TOKEN = re.compile(r"<!--.*?-->|(?P<element></?[a-zA-Z][a-zA-Z0-9]*)[^>]*>|[^<\s]+", re.DOTALL)
_STYLE = re.compile(r"<style.*?</style>", re.DOTALL | re.IGNORECASE)  # inlining moves it
_LOOKS_AROUND = re.compile(r":(?:first|last|nth|only|empty|not|has|is|where)\b|[+~\[]")
_WITHOUT_TEXT = frozenset(["table", "tbody", "thead", "tfoot", "tr", "colgroup"])
# Where a tag decides nothing about the HTML around it, among it the elements that hold only text.
_PLAIN = frozenset(["text", "value", "comment", "plain"])
_RAW = {"style": "raw", "script": "raw", "title": "plain", "textarea": "plain"}
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
        """Return whether `html` has the same marks, elements and words in the same order, and no new tags."""
        return (
            not BRACES.search(html)
            and _MARK.findall(html) == _MARK.findall(self.html)
            and _stream(html) == _stream(self.html)
        )

    def is_nested(self) -> bool:
        """Return whether elements and block tags enclose each other, as `{% if x %}<p>{% endif %}` do not.

        A value between the rows of a table is not taken either: readers move it to the front of the table.
        """
        open_: list[str] = []
        for found in _NODE.finditer(_COMMENT.sub("", self.html)):
            if found["mark"]:
                if not _nest_tag(open_, self.tags[int(found["mark"])]):
                    return False
            elif found["end"]:
                if not open_ or open_.pop() != found["end"].lower():
                    return False
            elif found["begin"].lower() not in VOID:
                open_.append(found["begin"].lower())
        return not open_

    def sways_styles(self) -> bool:
        """Return whether a tag may decide which styles apply.

        It may by standing around a style sheet, or through a selector that looks at neighbours, at what an
        element holds or at attributes.
        """
        styles = list(_STYLE.finditer(self.html))
        before = self.html[: styles[-1].start()] if styles else ""
        around = any(self.tags[int(mark[1] or mark[2])].startswith("{%") for mark in _MARK.finditer(before))
        return around or any(self.tags and _LOOKS_AROUND.search(style[0]) for style in styles)


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
        if _MAKES_HTML.search(text) or scanner.state not in _PLAIN or scanner.attribute in _DECIDING:
            return None
        pieces.append(f"<!--jinja:{len(tags)}-->" if scanner.state == "text" else f"jinja:{len(tags)}:")
        tags.append(text)
    html = "".join(pieces)
    return Protected(html, tuple(tags)) if len(_MARK.findall(html)) == len(tags) else None


def _nest_tag(open_: list[str], tag: str) -> bool:
    """Take a block tag onto or off the stack of what is open. Return whether the tag may stand here."""
    word = _WORD.match(tag)
    name = word[1] if word else ""
    if name in {"else", "elif"}:
        return open_[-1:] == [_BLOCK]
    if name.startswith("end"):
        return bool(open_) and open_.pop() == _BLOCK
    if name in {"if", "for", "with"} or (name == "set" and "=" not in tag):
        open_.append(_BLOCK)
        return True
    within = next((element for element in reversed(open_) if element != _BLOCK), "")
    return within not in _WITHOUT_TEXT or name == "set" or tag.startswith("{#")


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


def _stream(html: str) -> list[str]:
    """Return elements, without their attributes, marks and words as they follow each other."""
    found = _TOKEN.finditer(_STYLE.sub("", html))
    return [(token["element"] or "").lower() or unescape(token[0]) for token in found]


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
