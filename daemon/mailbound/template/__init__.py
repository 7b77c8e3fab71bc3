"""A template: a folder that becomes the subject, text and HTML of a message.

    spring/subject.txt      required, one line
           text.txt         the plain text; made from the HTML where it is absent
           html.html        the HTML; one of text.txt and html.html is required
           inline/          images that the HTML shows as <img src="cid:logo.png">
           attachments/     files that go along
           *.txt, *.html    anything else that `include` and `extends` name

It is read once. A run keeps it frozen, as one deterministic file.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import re
import traceback
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import jinja2
from jinja2 import meta
from jinja2.exceptions import SecurityError

from mailbound.errors import InputError
from mailbound.template import inlining, plaintext, sandbox
from mailbound.template.outlines import Outlines
from mailbound.template.sheet import Part, Sheet, Sieve

_LARGEST = 25 * 1024 * 1024  # octets of all files; what relays commonly take is less
_CID = re.compile(r"""(?<=["'(])cid:([^"')]*)""")
_MISSING = re.compile(r"('[^']*')(?: is undefined)?\Z")
_IN_ID = re.compile(r"[A-Za-z0-9_-]+")
_AT_ONCE = 1_000  # pieces that are measured together


class Rendered(NamedTuple):
    """A message's subject and parts, for one recipient."""

    subject: str
    text: str
    html: str | None
    """None if the message has none."""


@dataclass(frozen=True, slots=True)
class File:
    """An inline image or an attachment."""

    name: str
    content: bytes
    content_id: str | None = None
    """What the HTML refers to it by (RFC 2392), without angle brackets; None for an attachment."""


class TemplateFault(InputError):
    """A template cannot be rendered for somebody: a value is missing, or an expression is wrong."""


class Template:
    """What a folder holds, compiled."""

    def __init__(self, name: str, files: Mapping[str, bytes]) -> None:
        """Compile `files`, by their paths in the folder. Raises InputError, with file and line."""
        self.name = name
        self._files = dict(sorted(files.items()))
        self._sources = {
            path: self._decoded(path, content)
            for path, content in self._files.items()
            if path.endswith((".txt", ".html")) and not path.startswith(("inline/", "attachments/"))
        }
        if "subject.txt" not in self._sources:
            raise InputError(f"template {name}: subject.txt is missing")
        if not {"text.txt", "html.html"} & self._sources.keys():
            raise InputError(
                f"template {name}: text.txt and html.html are both missing; it needs one of them"
            )
        self.inline = self._folder("inline")
        self.attachments = self._folder("attachments")
        self._compile()

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the template in `folder`. Raises InputError, with file and line, if it cannot be used."""
        if not folder.is_dir():
            raise InputError(f"template {folder.name}: there is no folder {folder}")
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _hidden(path, folder)]
        if sum(path.stat().st_size for path in paths) > _LARGEST:
            raise InputError(f"template {folder.name}: its files have more than {_LARGEST:,} octets")
        return cls(folder.name, {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths})

    def freeze(self) -> bytes:
        """Return the template as a file that is the same wherever and whenever it is made."""
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            archive.comment = self.name.encode()
            for path, content in self._files.items():
                archive.writestr(zipfile.ZipInfo(path), content)  # its date is 1980-01-01
        return file.getvalue()

    @classmethod
    def thaw(cls, frozen: bytes) -> Self:
        """Return the template that `freeze` made into `frozen`."""
        with zipfile.ZipFile(io.BytesIO(frozen)) as archive:
            files = {path: archive.read(path) for path in archive.namelist()}
            return cls(archive.comment.decode(), files)

    @cached_property
    def sha256(self) -> str:
        """What identifies the template's content."""
        return hashlib.sha256(self.freeze()).hexdigest()

    def render(self, values: Mapping[str, Any]) -> Rendered:
        """Return the message for one recipient. Raises TemplateFault, naming what is missing and where.

        `values` hold only what JSON can: a template may call the methods of whatever it is given.
        """
        subject, text, html = self._pieces(values)
        return Rendered(subject, "".join(text), None if html is None else "".join(html))

    def render_all(self, rows: Sequence[Mapping[str, Any]]) -> list[Sheet]:
        """Return the messages for several recipients, as `render` makes them, those together that are alike.

        Raises TemplateFault if that of one of them cannot be made.
        """
        sheets, left = self._outlines.sheets(rows) if self._outlines else ([], range(len(rows)))
        return [*sheets, *self._gathered(rows, left)]

    def _gathered(self, rows: Sequence[Mapping[str, Any]], numbers: Iterable[int]) -> Iterator[Sheet]:
        """Yield what Jinja2 makes of some of the rows."""
        alike = defaultdict[Any, list[tuple[int, str, tuple[str, ...], tuple[str, ...]]]](list)
        for number in numbers:
            subject, text, html = self._pieces(rows[number])
            texts, in_text = self._sieve.parted(text)
            html_texts, in_html = (None, ()) if html is None else self._sieve.parted(html)
            alike[texts, html_texts].append((number, subject, in_text, in_html))
        for (texts, html_texts), messages in alike.items():
            these, subjects, in_text, in_html = zip(*messages, strict=True)
            html_part = None if html_texts is None else Part(html_texts, list(zip(*in_html, strict=True)))
            yield Sheet(these, subjects, Part(texts, list(zip(*in_text, strict=True))), html_part)

    def _pieces(self, values: Mapping[str, Any]) -> tuple[str, list[str], list[str] | None]:
        """Return a message in the pieces that Jinja2 makes it of."""
        variables = {**sandbox.GLOBALS, **values}
        sandbox.renew_budget()
        subject = " ".join("".join(_part(self._subject, variables)).split())
        html = _part(self._html, variables) if self._html else None
        if html is not None and self._inline_each:
            html = [inlining.inline("".join(html))]
        text = (
            [plaintext.from_html("".join(html or ()))] if self._text is None else _part(self._text, variables)
        )
        if self._laid_out:
            text = [plaintext.lay_out("".join(text))]
        return subject, text, html

    # --- compiling ----------------------------------------------------------------------------------------

    def _compile(self) -> None:
        html = {path: self._with_content_ids(path) for path in self._sources if path.endswith(".html")}
        source = html.get("html.html")
        inlined = inlining.inline_source(source) if source is not None else None
        self._inline_each = inlined is None and any("<style" in text for text in html.values())
        if source is not None and inlined is not None:
            html["html.html"] = inlined
        html_files = sandbox.Environment({**self._sources, **html}, html=True, trim=False)
        text_files = sandbox.Environment(self._sources, html=False)
        for path in self._sources:
            self._compiled(html_files if path in html else text_files, path)
        self._subject = self._compiled(text_files, "subject.txt")
        self._html = self._compiled(html_files, "html.html") if source is not None else None
        text = self._text_file(source, text_files)
        self._text = self._compiled(*text) if text else None
        self._laid_out = text is not None and "text.txt" not in self._sources
        environments = {html_files, text_files, text[0] if text else text_files}
        self._sieve = Sieve(constant for environment in environments for constant in environment.constants)
        self._outlines = (
            self._outlined(html_files, text_files, text) if text and not self._inline_each else None
        )

    def _outlined(
        self,
        html_files: sandbox.Environment,
        text_files: sandbox.Environment,
        text: tuple[sandbox.Environment, str],
    ) -> Outlines | None:
        subject, text_part = text_files.outline("subject.txt"), text[0].outline(text[1])
        html = html_files.outline("html.html") if self._html else None
        if subject is None or text_part is None or (self._html and html is None):
            return None
        return Outlines(subject, text_part, html, laid_out=self._laid_out)

    def _text_file(
        self, source: str | None, text_files: sandbox.Environment
    ) -> tuple[sandbox.Environment, str] | None:
        """Return where the text is, or None if it can only be made from each message's HTML."""
        if "text.txt" in self._sources:
            return text_files, "text.txt"
        derived = plaintext.from_source(source or "")
        if derived is None:
            return None
        return sandbox.Environment({"html.html": derived}, html=False, trim=False), "html.html"

    def _compiled(self, environment: sandbox.Environment, path: str) -> jinja2.Template:
        try:
            others = meta.find_referenced_templates(environment.parse(self._sources[path], path))
            missing = [other for other in others if other is not None and other not in self._sources]
            template = environment.get_template(path)
        except jinja2.TemplateSyntaxError as error:
            where = f"{error.name or path}, line {error.lineno}"
            raise InputError(f"template {self.name}: {where}: {error.message}") from None
        except RecursionError:
            raise InputError(f"template {self.name}: {path}: it is nested too deeply") from None
        if missing:
            raise InputError(f"template {self.name}: {path}: it names {missing[0]}, which is not there")
        return template

    def _decoded(self, path: str, content: bytes) -> str:
        try:
            return content.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise InputError(f"template {self.name}: {path}, line {line}: it is not UTF-8") from None

    def _folder(self, folder: str) -> list[File]:
        found = []
        for path, content in self._files.items():
            if not path.startswith(f"{folder}/"):
                continue
            name = path.removeprefix(f"{folder}/")
            found.append(File(name, content, self._content_id(name, content) if folder == "inline" else None))
        return found

    def _content_id(self, name: str, content: bytes) -> str:
        stem = "-".join(_IN_ID.findall(name)) or "image"
        return f"{stem}.{hashlib.sha256(content).hexdigest()[:16]}@inline.invalid"

    def _with_content_ids(self, path: str) -> str:
        """Return the HTML with `cid:logo.png` as `cid:` and the image's Content-ID."""
        identifiers = {file.name: file.content_id for file in self.inline}

        def replace(found: re.Match[str]) -> str:
            if found[1] in identifiers:
                return f"cid:{identifiers[found[1]]}"
            line = self._sources[path].count("\n", 0, found.start()) + 1
            near = ", ".join(identifiers) or "nothing"
            raise InputError(
                f"template {self.name}: {path}, line {line}: there is no inline/{found[1]}; inline/ holds {near}"
            )

        return _CID.sub(replace, self._sources[path])


def _part(template: jinja2.Template, variables: dict[str, Any]) -> list[str]:
    """Return the pieces that a template makes: its own texts, and what was filled in between."""
    try:
        # `template.new_context` would copy the globals for each part.
        context = template.environment.context_class(
            template.environment, variables, template.name, template.blocks
        )
        return _measured(template.root_render_func(context))
    except Exception as error:  # noqa: BLE001 - an expression can fail in as many ways as Python can
        raise TemplateFault(_explain(error, template)) from None


def _measured(made: Iterator[str]) -> list[str]:
    """Return all pieces, unless they are too much: then it stops soon."""
    pieces: list[str] = []
    size = 0
    while some := list(itertools.islice(made, _AT_ONCE)):
        size += sum(map(len, some))
        if size > sandbox.LARGEST_OUTPUT:
            raise SecurityError(f"it makes more than {sandbox.LARGEST_OUTPUT:,} characters")
        pieces = pieces + some if pieces else some
    return pieces


def _explain(error: Exception, template: jinja2.Template) -> str:
    """Return what is wrong and where, in the words of somebody who writes templates."""
    where = template.name or ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == "<template>" and (name := frame.f_globals.get("name")):
            compiled = template.environment.get_template(name)
            where = f"{name}, line {compiled.get_corresponding_lineno(line)}"
    if isinstance(error, jinja2.UndefinedError) and (missing := _MISSING.search(str(error))):
        return f"{missing[1]} is missing in {where}"
    if isinstance(error, RecursionError):
        return f"it calls itself without end in {where}"
    return f"{error} in {where}"


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") or part.endswith("~") for part in path.relative_to(folder).parts)
