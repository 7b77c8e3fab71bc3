"""The structure of a mail, read from its octets: header block, fields, MIME parts (RFC 5322, 2045, 2046).

Nothing here raises, whatever the octets are. What is malformed degrades: a multipart without its boundary is text, an
unknown charset is read as UTF-8 and then as Latin-1. What is over a limit is not looked at: a report says what it has
to say at its top, before the message that it gives back, which may be of any size.
"""

from __future__ import annotations

import binascii
import codecs
import functools
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

from mailbound.reading.once import Once

SIZE_LIMIT = 8 * 1024 * 1024  # octets of a mail that are read
HEADER_LIMIT = 100 * 1024  # octets of a header block
PARAMETERS_LIMIT = 4096  # characters of Content-Type in which its parameters are looked for
PART_LIMIT = 1000
NESTING_LIMIT = 100
COPY_LIMIT = 64 * 1024 * 1024  # octets of all parts together: each level of nesting holds its own
TEXT_LIMIT = 256 * 1024  # octets of a text
TEXTS_LIMIT = 1024 * 1024  # of all texts together
_SHORT_BLOCK = 256  # octets of a part's header that may be remembered

_FIELD = re.compile(r"^([!-9;-~]{1,200}+)[ \t]*+:(.*+(?:\n[ \t].*+)*+)", re.MULTILINE)
_FOLD = re.compile(r"\n[ \t]+")
_PARAMETER = re.compile(r""";\s*([^\s=;*]+)(?:\*0?\*?)?\s*=\s*("(?:[^"\\]++|\\.)*+"|[^\s;]*)""")
_ESCAPED = re.compile(r"\\(.)")
_ENCODED_WORD = re.compile(r"=\?([\w.:-]+)(?:\*[\w-]*)?\?([bq])\?([^?\s]*)\?=", re.IGNORECASE)
_BETWEEN_WORDS = re.compile(r"(\?=)\s+(=\?)")
_NOT_BASE64 = bytes(
    set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
)

# What Python knows and no mail may choose: it is slow, or no charset at all, or makes half a character of something.
_REFUSED_CHARSETS = frozenset(
    {"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape", "utf-7"}
)

_SEPARATOR = re.compile(rb">?From (?![ \t]*:)")  # of an mbox file; a field may have blanks before its colon
_MARKED_FIELD = re.compile(rb"(?m)^>+(From[ \t]+:)")
_MARKED_FROM = re.compile(r"(?m)^>+From ")  # what a mailbox file marks, once for each time that it lay in one
_WIDE = re.compile(r"utf[-_]?(16|32)[-_]?((?:[bl]e)?)")

_HTML_DROPPED = (("<style", "</style"), ("<script", "</script"), ("<head>", "</head"), ("<!--", "-->"))
_HTML_BREAK = re.compile(
    r"(?i)<(?:br|/?p|/?div|/?tr|/?table|/?li|/?ul|/?h\d|hr|/?blockquote)\b[^<>]{0,2000}>\s*"
)
_HTML_CELL = re.compile(r"(?i)<t[dh]\b[^<>]{0,2000}>")
_HTML_TAG = re.compile(r"<[a-zA-Z/!?][^<>]{0,4000}>")


class Headers:
    """The fields of one header block, by lower-case name, in order, unfolded."""

    def __init__(self, block: bytes) -> None:
        """Read the fields of `block`; lines that are no fields are passed over."""
        self._fields: dict[str, list[str]] = {}
        for name, value in _FIELD.findall(block[:HEADER_LIMIT].decode("latin-1")):
            self._fields.setdefault(name.lower(), []).append(value)

    def __contains__(self, name: str) -> bool:
        """Tell whether there is such a field."""
        return name in self._fields

    def has_none(self, names: frozenset[str]) -> bool:
        """Tell whether there is no field of any of these names."""
        return names.isdisjoint(self._fields)

    def __bool__(self) -> bool:
        """Tell whether there is any field."""
        return bool(self._fields)

    def all(self, name: str) -> list[str]:
        """Return the values of every field of that name, in order."""
        return [_unfolded(value) for value in self._fields[name]] if name in self._fields else []

    def get(self, name: str) -> str:
        """Return the value of the first field of that name, "" if there is none."""
        return _unfolded(self._fields[name][0]) if name in self._fields else ""

    def text(self, name: str) -> str:
        """Return the same with its encoded words decoded (RFC 2047)."""
        return decoded_words(self.get(name))

    @Once
    def stated_type(self) -> str:
        """Return the type in Content-Type, in lower case; "" if there is none."""
        stated = self.get("content-type").partition(";")[0]
        return stated.strip().lower() if "/" in stated else ""

    @Once
    def type_parameters(self) -> dict[str, str]:
        """Return the parameters of Content-Type by their lower-case names; of two of one name the first stands."""
        stated = self.get("content-type").partition(";")[2]
        found: dict[str, str] = {}
        for name, value in _PARAMETER.findall(f";{stated}"[:PARAMETERS_LIMIT]) if stated else ():
            found.setdefault(name.lower(), _unquoted(value) if value.startswith('"') else value)
        return found


@functools.lru_cache(maxsize=512)
def _of_part(block: bytes) -> Headers:
    """Return the fields of a part. Mail systems write the same few above the parts of all their reports."""
    return Headers(block)


def _unfolded(value: str) -> str:
    """Return a value whose octets are those of `value` in Latin-1."""
    if "\n" in value:
        value = _FOLD.sub(" ", value)
    if "\0" in value or not value.isascii():
        value = text_of(value.encode("latin-1"))
    return value.strip()


@dataclass(slots=True)
class Budget:
    """What is left of the limits that hold for all parts of a mail together."""

    parts: int = PART_LIMIT
    copies: int = COPY_LIMIT
    texts: int = TEXTS_LIMIT


class Part:
    """One MIME entity: its headers and its body. The mail itself is one."""

    def __init__(
        self,
        raw: bytes,
        *,
        begin: int = 0,
        depth: int = 0,
        budget: Budget | None = None,
        default: str = "text/plain",
    ) -> None:
        """Read the header block of `raw`, whose lines end with LF; the rest waits until it is asked for."""
        block, body = split_header(raw)
        self.headers = _of_part(block) if depth and len(block) <= _SHORT_BLOCK else Headers(block)
        self.body = body
        self.begin = begin + len(raw) - len(body)  # of its body, in the octets of the whole mail
        self._depth = depth
        self._budget = budget or Budget()
        self.content_type = self.headers.stated_type or default

    @property
    def parts_read(self) -> int:
        """How many parts of the whole mail were found so far, at any depth."""
        return PART_LIMIT - self._budget.parts

    def parameter(self, name: str) -> str:
        """Return a parameter of Content-Type, "" if it is not there."""
        return self.headers.type_parameters.get(name, "")

    @Once
    def parts(self) -> tuple[Part, ...]:
        """Return the parts of a multipart; () for anything else, and for one without its boundary."""
        if not self.content_type.startswith("multipart/") or self._depth >= NESTING_LIMIT:
            return ()
        boundary = self.parameter("boundary").rstrip()
        if not boundary:
            return ()
        default = "message/rfc822" if self.content_type == "multipart/digest" else "text/plain"
        return tuple(self._split(boundary.encode("utf-8", "replace"), default))

    def _split(self, boundary: bytes, default: str) -> Iterator[Part]:
        body = b"\n" + self.body  # so that each delimiter stands behind a newline, which is quick to find
        delimiter = b"\n--" + boundary
        begin = None
        at = body.find(delimiter)
        while at >= 0:
            end = body.find(b"\n", at + len(delimiter))
            end = len(body) if end < 0 else end
            tail = body[at + len(delimiter) : end].rstrip(b" \t")
            if tail in {b"", b"--"}:
                if begin is not None:
                    yield self._child(body[begin:at], begin, default)
                begin = end + 1
                if tail or self._budget.parts <= 0 or self._budget.copies <= 0:
                    return
            at = body.find(delimiter, end)
        if begin is not None:  # the closing line is missing
            yield self._child(body[begin:], begin, default)

    def _child(self, raw: bytes, at: int, default: str) -> Part:
        self._budget.parts -= 1
        self._budget.copies -= len(raw)
        begin = self.begin + at - 1  # `_split` put a newline before the body
        return Part(raw, begin=begin, depth=self._depth + 1, budget=self._budget, default=default)

    def leaves(self) -> Iterator[Part]:
        """Yield the parts that are no multiparts, in order. Never looks into an embedded message."""
        if not self.parts:
            yield self
        for part in self.parts:
            if part.content_type.startswith("multipart/"):
                yield from part.leaves()
            else:
                yield part

    @Once
    def content(self) -> bytes:
        """Return the body with its transfer encoding undone."""
        return decoded(self.body, self.headers.get("content-transfer-encoding"))

    @Once
    def text(self) -> str:
        """Return the content as text, HTML without its tags; "" if it is no text."""
        if self.content_type == "text/html":
            return plain_text(self._characters())
        if self.content_type.startswith(("text/", "multipart/", "application/json")):
            return self._characters()
        return ""

    def _characters(self) -> str:
        octets = self.content[: min(TEXT_LIMIT, self._budget.texts)]
        self._budget.texts -= len(octets)
        text = text_of(octets, self.parameter("charset")).replace("\r\n", "\n")
        return _MARKED_FROM.sub("From ", text) if ">From " in text else text


def _unquoted(value: str) -> str:
    plain = _ESCAPED.sub(r"\1", value) if "\\" in value else value
    return plain[1:].removesuffix('"')


def parse(raw: bytes) -> Part:
    """Return the mail that `raw` is. Lines may end with CRLF or LF; an mbox separator before it is dropped."""
    raw = with_lf(raw[:SIZE_LIMIT]).lstrip(b"\n")
    if _SEPARATOR.match(raw):
        raw = raw.partition(b"\n")[2]
    return Part(raw)


def with_lf(raw: bytes) -> bytes:
    """Return `raw` with each CRLF made LF."""
    return raw.replace(b"\r\n", b"\n") if b"\r" in raw else raw


def split_header(raw: bytes) -> tuple[bytes, bytes]:
    """Return the header block and the body. Without an empty line between them, all is header."""
    if raw.startswith(b"\n"):
        return b"", raw[1:]
    block, _, body = raw.partition(b"\n\n")
    if b">From " in block:  # a field that an mbox file marked
        block = _MARKED_FIELD.sub(rb"\1", block)
    return block, body


def field_values(block: bytes, name: bytes) -> list[str]:
    """Return the values of the fields of that name, without reading the others."""
    block = block[:HEADER_LIMIT]
    small = b"\n" + block.lower()  # where a newline is found there, a line begins in `block`
    found: list[str] = []
    at = small.find(b"\n" + name)
    text = block.decode("latin-1") if at >= 0 else ""
    while at >= 0:
        match = _FIELD.match(text, at)
        if match and match[1].lower() == name.decode():
            found.append(_unfolded(match[2]))
        at = small.find(b"\n" + name, at + 1)
    return found


def decoded(body: bytes, encoding: str) -> bytes:
    """Return `body` with a Content-Transfer-Encoding undone (RFC 2045 §6), as far as it goes."""
    word = encoding.partition(";")[0].strip().lower() if encoding else ""
    if word == "quoted-printable":
        return binascii.a2b_qp(body)
    if word == "base64":
        letters = body.translate(None, _NOT_BASE64)
        letters = letters[: len(letters) - (len(letters) % 4 == 1)]
        return binascii.a2b_base64(letters + b"=" * (-len(letters) % 4))
    return body


def text_of(raw: bytes, charset: str = "") -> str:
    """Return `raw` as text in `charset`, else in UTF-8, else in Latin-1; without NUL, which no PostgreSQL stores."""
    text = _characters_of(raw, charset.strip().lower())
    return text.replace("\0", "\ufffd") if "\0" in text else text


def _characters_of(raw: bytes, charset: str) -> str:
    wide = (
        _WIDE.fullmatch(charset) if b"\0" in raw else None
    )  # without a NUL it is none, whatever it calls itself
    if wide:
        return _wide_characters_of(raw, int(wide[1]) // 8, wide[2])
    if raw.isascii() and not charset.startswith("iso-2022"):
        return raw.decode("ascii")
    if charset:
        try:
            if codecs.lookup(charset).name not in _REFUSED_CHARSETS:  # whatever alias it goes by
                return raw.decode(charset, "replace")
        except (LookupError, ValueError):
            pass
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _wide_characters_of(raw: bytes, width: int, order: str) -> str:
    """Return a text in UTF-16 or UTF-32: in the order of its mark, of its name, or of its NULs (RFC 2781 §4)."""
    if raw.startswith((codecs.BOM_UTF16_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF32_BE)):
        order = ""
    elif not order:  # of most letters, and of each blank, the upper octets are NUL
        order = "le" if raw[width - 1 :: width].count(0) > raw[::width].count(0) else "be"
    return raw.decode(f"utf-{8 * width}{order}", "replace")


def decoded_words(value: str) -> str:
    """Return `value` with its encoded words decoded (RFC 2047 §6)."""
    if "=?" not in value:
        return value
    return _ENCODED_WORD.sub(_word, _BETWEEN_WORDS.sub(r"\1\2", value))


def _word(match: re.Match[str]) -> str:
    charset, encoding, text = match[1], match[2].lower(), match[3].encode("utf-8", "replace")
    if encoding == "b":
        return text_of(decoded(text, "base64"), charset)
    return text_of(binascii.a2b_qp(text, header=True), charset)


def plain_text(source: str) -> str:
    """Return the text of an HTML page, a line for each block."""
    for begin, end in _HTML_DROPPED:
        source = _without(source, begin, end)
    source = _HTML_CELL.sub(" ", _HTML_BREAK.sub("\n", source))
    return html.unescape(_HTML_TAG.sub("", source)).replace("\xa0", " ")


def _without(source: str, begin: str, end: str) -> str:
    """Return `source` without what stands from each `begin` to its `end`; without an end, to the last character."""
    small = source.lower()
    if len(small) != len(source):  # a letter that grows when it is made small: the places would not agree
        return source
    kept, at = [], 0
    while (found := small.find(begin, at)) >= 0:
        kept.append(source[at:found])
        close = small.find(end, found)
        at = len(source) if close < 0 else close + len(end)
    return "".join((*kept, source[at:]))
