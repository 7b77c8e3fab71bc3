"""Plain text made from HTML, for the readers and people that prefer it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser

from mailbound.template import protection

_SKIPPED = frozenset(["head", "script", "style", "template", "title"])
_VOID = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"]
)
_BREAKS = {  # how many line breaks stand before and after a block
    2: """address article blockquote dl fieldset footer form h1 h2 h3 h4 h5 h6 header main nav ol p pre section
        table ul""",
    1: "body caption dd div dt figure html li tbody tfoot thead tr",
}
_BLOCKS = {tag: breaks for breaks, tags in _BREAKS.items() for tag in tags.split()}
_HIDDEN = re.compile(r"display\s*:\s*none", re.IGNORECASE)
_COMMENT = re.compile(r"jinja:(\d+)")
_BRACES = re.compile(r"\{[{%#]")
# What makes HTML of a value, or brings HTML from another file, is only known when it is rendered.
_MAKES_HTML = re.compile(
    r"\|\s*(?:e|escape|forceescape|safe|tojson|urlize|xmlattr)\b"
    r"|^\{%[-+]?\s*(?:autoescape|block|call|extends|filter|from|import|include|macro)\b"
)


def from_html(html: str) -> str:
    """Return the text of `html`: paragraphs apart, items with a dash, a link's target after its words."""
    reader = _Reader(())
    reader.feed(html)
    reader.close()
    return tidy("".join(reader.pieces))


def from_source(source: str) -> str | None:
    """Return a text template for an HTML template, or None if only rendered HTML can be turned into text."""
    protected = protection.protect(source)
    if protected is None or any(_MAKES_HTML.search(tag) for tag in protected.tags):
        return None
    reader = _Reader(protected.tags)
    reader.feed(protected.html)
    reader.close()
    text = "".join(reader.pieces)
    if reader.blocks != [tag for tag in protected.tags if tag.startswith("{%")] or _BRACES.search(text):
        return None
    return protected.restore(text)


def tidy(text: str) -> str:
    """Return `text` with at most one empty line in a row, and one line break at its end."""
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", lines).strip("\n") + "\n"


class _Reader(HTMLParser):
    """Collects the text of HTML in `pieces`, and the block tags that stood in it in `blocks`."""

    def __init__(self, tags: Sequence[str]) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.blocks: list[str] = []
        self._tags = tags
        self._breaks = 0  # line breaks to come before the next word
        self._space = False  # or else a space
        self._prefix = ""
        self._skipped = ""  # the element that is skipped, and how many of its kind are open
        self._depth = 0
        self._verbatim = 0
        self._links: list[tuple[str, int]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin an element."""
        if self._skipped and tag != "body":
            self._depth += tag == self._skipped
            return
        self._skipped = ""
        attributes = {name: value or "" for name, value in attrs}
        if tag in _SKIPPED or _HIDDEN.search(attributes.get("style", "")):
            if tag not in _VOID:
                self._skipped, self._depth = tag, 1
            return
        self._begin(tag, attributes)

    def handle_endtag(self, tag: str) -> None:
        """End an element."""
        if self._skipped:
            self._depth -= tag == self._skipped
            self._skipped = self._skipped if self._depth else ""
        elif tag == "a" and self._links:
            self._end_link(*self._links.pop())
        elif tag in _BLOCKS:
            self._break(_BLOCKS[tag])
            self._verbatim -= tag == "pre"

    def handle_data(self, data: str) -> None:
        """Take words, or lines as they are within `pre`."""
        if self._skipped:
            return
        if self._verbatim > 0:
            self._emit(data)
            return
        self._space |= data[:1].isspace()
        if words := " ".join(data.split()):
            self._emit(words)
        self._space |= data[-1:].isspace()

    def handle_comment(self, data: str) -> None:
        """Take a protected tag; drop any other comment."""
        mark = _COMMENT.fullmatch(data)
        if not mark or self._skipped or not self._tags:
            return
        tag = self._tags[int(mark[1])]
        if tag.startswith("{%") and "raw" not in tag.split("%}")[0]:
            self.blocks.append(tag)
            self.pieces.append(f"<!--{data}-->")  # what is to come before the next word belongs after it
        elif not tag.startswith("{#"):
            self.blocks += [tag] if tag.startswith("{%") else []
            self._emit(f"<!--{data}-->")

    def _begin(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "br":
            self._break(min(self._breaks + 1, 2))
        elif tag == "hr":
            self._break(2)
            self._emit("-" * 40)
            self._break(2)
        elif tag == "img" and attributes.get("alt"):
            self._emit(attributes["alt"])
        elif tag == "a":
            self._links.append((attributes.get("href", "").strip(), len(self.pieces)))
        elif tag in {"td", "th"}:
            self._space = True
        elif tag in _BLOCKS:
            self._break(_BLOCKS[tag])
            self._prefix = "- " if tag == "li" else self._prefix
            self._verbatim += tag == "pre"

    def _end_link(self, target: str, start: int) -> None:
        words = "".join(self.pieces[start:]).strip()
        if target and not target.startswith("#") and target not in {words, f"mailto:{words}", f"tel:{words}"}:
            self._space = bool(words)
            self._emit(f"<{target}>")

    def _break(self, lines: int) -> None:
        self._breaks = max(self._breaks, lines)

    def _emit(self, text: str) -> None:
        if self._breaks or not self.pieces:
            self.pieces.append("\n" * self._breaks + self._prefix)
        elif self._space:
            self.pieces.append(" ")
        self._breaks, self._space, self._prefix = 0, False, ""
        self.pieces.append(text)
