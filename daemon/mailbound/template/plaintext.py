"""Plain text made from HTML, for the readers and people that prefer it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html.parser import HTMLParser

from mailbound.template import protection

_SKIPPED = frozenset(["head", "script", "style", "template", "title"])
_HIDDEN = re.compile(r"display\s*:\s*none", re.IGNORECASE)
_COMMENT = re.compile(r"jinja:(\d+)")

# Space is written as marks, and settled by `lay_out` when all words are there: whether a paragraph really stands
# between two others may depend on the recipient.
_BR, _ITEM, _PARAGRAPH, _LINE, _SPACE = "\x0b", "\x1c", "\x1d", "\x1e", "\x1f"
_BLOCKS = """address article blockquote dl fieldset footer form h1 h2 h3 h4 h5 h6 header main nav ol p pre section
    table ul"""
_LINES = "body caption dd div dt figure html li tbody tfoot thead tr"
_AROUND = dict.fromkeys(_BLOCKS.split(), _PARAGRAPH) | dict.fromkeys(_LINES.split(), _LINE)
_MARKS = re.compile(r"[\x0b\x1c-\x1f]+")
_OWN = re.compile(r"[\n\x0b\x1c-\x1f]")


def from_html(html: str) -> str:
    """Return the text of `html`: paragraphs apart, items with a dash, a link's target after its words."""
    reader = _Reader(protection.Protected(html, ()))
    return lay_out("".join(reader.pieces))


def from_source(source: str) -> str | None:
    """Return a text template for an HTML template, or None if only rendered HTML can be turned into text.

    What is rendered from it is to be laid out.
    """
    protected = protection.protect(source)
    if protected is None or not protected.is_nested():
        return None
    reader = _Reader(protected)
    text = "".join(reader.pieces)
    blocks = [tag for tag in protected.tags if tag.startswith("{%")]
    if reader.blocks != blocks or protection.BRACES.search(text) or not reader.is_certain:
        return None
    return protected.restore(text)


def lay_out(marked: str) -> str:
    """Return the text with line breaks and spaces for its marks."""
    return _MARKS.sub(_white_space, _PARAGRAPH + marked + _PARAGRAPH).strip("\n") + "\n"


def has_space_of_its_own(values: Iterable[str]) -> bool:
    """Return whether what is filled in could change the space around it."""
    return bool(_OWN.search("\t".join(values)))


def _white_space(found: re.Match[str]) -> str:
    marks = set(found[0])
    floor = 2 if _PARAGRAPH in marks else 1 if marks & {_LINE, _ITEM} else 0
    breaks = max(min(found[0].count(_BR), 2), floor)
    return "\n" * breaks + ("- " if _ITEM in marks else "") or " "


class _Reader(HTMLParser):
    """Collects the text of HTML in `pieces`, and the block tags that stood in it in `blocks`.

    It is not `is_certain` if blocks decide whether a link is shown.
    """

    def __init__(self, protected: protection.Protected) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.blocks: list[str] = []
        self.is_certain = True
        self._protected = protected
        self._skipped = ""  # the element that is skipped, and how many of its kind are open
        self._depth = 0
        self._verbatim = 0
        self._links: list[tuple[str, int]] = []
        self.feed(protected.html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin an element."""
        if self._skipped and tag != "body":
            self._depth += tag == self._skipped
            return
        self._skipped = ""
        attributes = {name: value or "" for name, value in attrs}
        if tag not in protection.VOID and (tag in _SKIPPED or _HIDDEN.search(attributes.get("style", ""))):
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
        elif tag in _AROUND:
            self.pieces.append(_AROUND[tag])
            self._verbatim -= tag == "pre"

    def handle_data(self, data: str) -> None:
        """Take words, or lines as they are within `pre`."""
        if self._skipped:
            return
        data = _MARKS.sub(" ", data)
        if self._verbatim > 0:
            self.pieces.append(data)
        elif words := " ".join(data.split()):
            before, after = _SPACE * data[:1].isspace(), _SPACE * data[-1:].isspace()
            self.pieces.append(f"{before}{words}{after}")
        elif data:
            self.pieces.append(_SPACE)

    def handle_comment(self, data: str) -> None:
        """Take a protected tag; drop any other comment."""
        mark = _COMMENT.fullmatch(data)
        if not mark or self._skipped or not self._protected.tags:
            return
        tag = self._protected.tags[int(mark[1])]
        if tag.startswith("{%"):
            self.blocks.append(tag)
        if not tag.startswith("{#"):
            self.pieces.append(f"<!--{data}-->")

    def _begin(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "hr":
            self.pieces.append(f"{_PARAGRAPH}{'-' * 40}{_PARAGRAPH}")
        elif tag == "img":
            self.pieces.append(attributes.get("alt", ""))
        elif tag == "a":
            self._links.append((attributes.get("href", "").strip(), len(self.pieces)))
        elif tag in _AROUND:
            self.pieces.append(_AROUND[tag] + (_ITEM if tag == "li" else ""))
            self._verbatim += tag == "pre"
        else:
            self.pieces.append({"br": _BR, "td": _SPACE, "th": _SPACE}.get(tag, ""))

    def _end_link(self, target: str, start: int) -> None:
        words = _MARKS.sub(" ", self._protected.restore("".join(self.pieces[start:]))).strip()
        shown = self._protected.restore(target)
        bare = shown.removeprefix("mailto:").removeprefix("tel:")
        if "{%" in shown or ("{%" in words and ("{{" in words or bare in words)):
            self.is_certain = False
        if shown and not shown.startswith("#") and shown not in {words, f"mailto:{words}", f"tel:{words}"}:
            self.pieces.append(f"{_SPACE}<{target}>")
