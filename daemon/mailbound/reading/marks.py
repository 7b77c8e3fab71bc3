"""Where in a mail that stands which its report was read from: marks on its lines, for people who want to see it.

The readers keep no places, since they read thousands of mails a second and hardly anybody asks. So what a report says
is sought again where its reader had it from; what cannot be found there is not marked, and nothing is marked that the
report does not say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mailbound import correlate
from mailbound.correlate import Carrier
from mailbound.model import Kind
from mailbound.reading import arf, autoreply, dsn, layout, phrases, unsubscribe
from mailbound.reading.layout import Line, Zone
from mailbound.reading.mail import ADDRESS, Mail
from mailbound.reading.page import Field, Page
from mailbound.reading.places import Stretch, Text
from mailbound.reading.report import Report
from mailbound.status import StatusCode


class Mark(StrEnum):
    """What a stretch of a line was used for."""

    KIND = "kind"  # it decided what kind of mail it is
    RECIPIENT = "recipient"
    STATUS = "status"  # or the action, or the code of a reply
    DIAGNOSTIC = "diagnostic"
    TOKEN = "token"  # noqa: S105 - it may show which delivery is meant


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Characters `begin` to `end` of the text of the line with the index `line`."""

    line: int
    begin: int
    end: int
    mark: Mark


@dataclass(frozen=True, slots=True)
class Marked:
    """A mail laid out, and what was used of it, in the order of its lines."""

    lines: tuple[Line, ...]
    spans: tuple[Span, ...]


Found = tuple[Mark, Stretch]

DIAGNOSTIC_LINES = 8
"""A text that is longer is no quotation but the whole mail: only its telling lines are marked."""

_REPLY = re.compile(r"(?<![\w.])[245]\d\d(?=[ -]\S)")
_STATUS = re.compile(r"(?<![\w.])[245]\.\d{1,3}\.\d{1,3}(?![\w.]*\d)")
_EVENT = re.compile(r"(?i)\\?\"(?:notification|event)type\\?\"\s*:\s*\\?\"\w+\\?\"")
_STATUS_BEGINS = re.compile(r"(?m)^(?:reporting-mta|final-recipient)[ \t]*:.*")

_COMPLAINING = frozenset({"original-rcpt-to", "removal-recipient"})
_ADDRESSED = frozenset({"delivered-to", "x-original-to", "envelope-to", "apparently-to", "to", "subject"})
_SENTENCES = (phrases.UNDELIVERED, phrases.LATER, phrases.DELIVERED)


def mark(raw: bytes, report: Report) -> Marked:
    """Return the mail `raw`, whose report is `report`, with what was used of it. Nothing makes it raise."""
    page = Page(Mail(raw), layout.lay_out(raw))
    found = {*_kind(page, report), *_said(page, report), *_tokens(page, report)}
    spans = sorted(Span(*stretch, what) for what, stretch in found if stretch[1] < stretch[2])
    return Marked(page.lines, tuple(spans))


# --- what kind of mail it is -------------------------------------------------------------------------------


def _kind(page: Page, report: Report) -> Iterator[Found]:
    names = frozenset(_deciding(page.mail, report))
    for field in page.header:
        if field.name in names:
            yield from ((Mark.KIND, stretch) for stretch in field.whole(page.lines))
    parts = _deciding_parts(page, report)
    for field in page.fields(page.of(Zone.FENCE, parts)):
        if field.name == "content-type":
            yield from ((Mark.KIND, stretch) for stretch in field.whole(page.lines))
    yield from ((Mark.KIND, stretch) for stretch in _deciding_words(page, report, parts))


def _deciding(mail: Mail, report: Report) -> Iterator[str]:
    """Yield the names of the header fields that made it what it is."""
    if report.part == "autoreply":
        yield from _by_program(mail, report)
    elif report.part == "unsubscribe":
        if unsubscribe.is_by_program(mail):
            yield "x-apple-unsubscribe"
        elif phrases.UNSUBSCRIBE_SUBJECT.match(mail.small_subject) or unsubscribe.in_subject(mail.subject):
            yield "subject"
        else:
            yield from ("delivered-to", "x-original-to", "to")
    elif report.part == "arf" and "feedback-report" not in _types(mail):
        yield from ("from", "subject")
    elif report.part in {"dsn", "arf", "mdn"} and mail.part.content_type.startswith(
        ("multipart/", "message/")
    ):
        yield "content-type"
    elif report.kind is not Kind.ORDINARY and report.part != "ses":
        yield from _by_daemon(mail)


def _types(mail: Mail) -> str:
    return " ".join(
        (mail.part.parameter("report-type").lower(), *(leaf.content_type for leaf in mail.leaves))
    )


def _by_program(mail: Mail, report: Report) -> Iterator[str]:
    if report.kind is Kind.CHALLENGE:
        yield from ("x-tmda-fingerprint", "x-boxbe-notification-reason")
        yield "from" if autoreply.is_challenger(mail) else "subject"
        return
    yield from autoreply.signs(mail)
    if autoreply.is_absence(mail):
        yield "subject"


def _by_daemon(mail: Mail) -> Iterator[str]:
    yield from ("x-failed-recipients", "x-mlserver")
    if mail.has_null_path:
        yield "return-path"
    if mail.is_from_daemon or mail.is_from_nobody:
        yield "from"
    if mail.part.content_type == "multipart/report":
        yield "content-type"
    if phrases.REPORT_SUBJECT.search(mail.small_subject):
        yield "subject"


def _deciding_parts(page: Page, report: Report) -> list[int]:
    types = {
        "dsn": dsn.TYPES,
        "arf": frozenset({arf.TYPE}),
        "mdn": frozenset({"message/disposition-notification"}),
    }
    return page.parts(types.get(report.part, frozenset()))


def _deciding_words(page: Page, report: Report, parts: list[int]) -> Iterator[Stretch]:
    """Yield the sentence by which it became what it is, or what stands for one."""
    if report.part == "arf":
        for field in page.fields(page.of(Zone.BODY, parts)):
            if field.name == "feedback-type":
                yield from field.whole(page.lines)
        return
    if report.part == "dsn" and not parts:
        patterns: tuple[re.Pattern[str], ...] = (_STATUS_BEGINS,)
    elif report.part == "ses":
        patterns = (_EVENT,)
    elif report.part.startswith(("prose:", "flufl:")):
        patterns = _SENTENCES
    else:
        return
    text = page.words
    match = next(filter(None, (pattern.search(text.small) for pattern in patterns)), None)
    if match is None:
        return
    begin, end = match.span()
    if patterns is _SENTENCES:  # a pattern is as short as it may be; people want the sentence
        begin = text.joined.rfind("\n", 0, begin) + 1
        end += len(text.joined[end:].partition("\n")[0])
    yield from text.stretches(begin, end)


# --- what it says of whom ----------------------------------------------------------------------------------


def _said(page: Page, report: Report) -> Iterator[Found]:
    known = {
        name.lower()
        for one in report.recipients
        for name in (one.final_recipient, one.original_recipient)
        if name
    }
    if report.part.endswith("dsn"):
        indexes: Sequence[int] = page.of(Zone.BODY, page.parts(dsn.TYPES)) or page.words.indexes
        if report.part != "dsn":
            indexes = page.everything.indexes
        found = [*_of_status(page, indexes, known)]
        text = Text(page.lines, indexes)
        if any(text.find(one.diagnostic_code) is None for one in report.recipients):
            found += _diagnostics(page.words, report)
    elif report.part == "arf":
        fields = page.fields(page.of(Zone.BODY, page.parts({arf.TYPE})))
        found = [*_addresses(page, [field for field in fields if field.name in _COMPLAINING], known)]
    elif report.part == "unsubscribe":
        found = [*_addresses(page, [field for field in page.header if field.name == "from"], known)]
    else:
        enclosed = report.part.startswith("enclosed:")
        text = page.everything if enclosed else page.words
        found = [*_named(page, text, known), *_diagnostics(text, report)]
        listed = [field for field in page.header if field.name == "x-failed-recipients"]
        found += _addresses(page, listed, known)
    yield from found
    yield from _codes(page, found, report)


def _of_status(page: Page, indexes: Sequence[int], known: set[str]) -> Iterator[Found]:
    """Yield what stands in the groups of a delivery status (RFC 3464 §2.3) that name one of `known`."""
    local = {name.partition("@")[0] for name in known}
    is_meant, names = False, frozenset[str]()
    for group in page.groups(indexes):
        before, names = names, frozenset(field.name for field in group)
        naming = [field for field in group if field.name in dsn.NAMES_RECIPIENT]
        if naming:
            told = {dsn.recipient_address(field.value).lower() for field in naming}
            is_meant = bool(told & (known | local))
        elif "action" not in names or "action" in before:  # else an empty line in the middle of a group
            is_meant = False
        if not is_meant:
            continue
        yield from _addresses(page, naming, known)
        for field in group:
            if field.name in {"action", "status"}:
                yield from ((Mark.STATUS, stretch) for stretch in field.lines)
            elif field.name == "diagnostic-code":
                yield from ((Mark.DIAGNOSTIC, stretch) for stretch in field.lines)


def _addresses(page: Page, fields: list[Field], known: set[str]) -> Iterator[Found]:
    """Yield the addresses of `known` in these fields; a field that writes its own in a code is yielded whole."""
    for field in fields:
        is_found = False
        for index, begin, end in field.lines:
            for match in ADDRESS.finditer(page.lines[index].text, begin, end):
                if match[0].rstrip(".").lower() in known:
                    is_found = True
                    yield Mark.RECIPIENT, (index, match.start(), match.end())
        if not is_found:
            yield from ((Mark.RECIPIENT, stretch) for stretch in field.lines)


def _named(page: Page, text: Text, known: set[str]) -> Iterator[Found]:
    """Yield each of `known` where a text names it first: in full, by its local part, or else wherever it stands."""
    missing = set(known)
    for match in ADDRESS.finditer(text.joined):
        name = match[0].rstrip(".").lower()
        if name in missing:
            missing.remove(name)
            yield from _of_text(text, match.start(), len(name))
    for name in sorted(missing)[:_SOUGHT]:
        local = re.search(rf"(?<![\w.]){re.escape(name.partition('@')[0])}(?![\w.@])", text.small)
        if (begin := text.small.find(name)) >= 0:
            yield from _of_text(text, begin, len(name))
        elif local:
            yield from _of_text(text, local.start(), len(local[0]))
        elif (begin := page.everything.small.find(name)) >= 0:
            yield from _of_text(page.everything, begin, len(name))


_SOUGHT = 50  # names in a form that is none of an address, each of which costs a search


def _of_text(text: Text, begin: int, length: int) -> Iterator[Found]:
    return ((Mark.RECIPIENT, stretch) for stretch in text.stretches(begin, begin + length))


def _diagnostics(text: Text, report: Report) -> Iterator[Found]:
    for one in report.recipients:
        place = text.find(one.diagnostic_code)
        if place is None:
            continue
        stretches = [stretch for stretch in text.stretches(*place) if stretch[1] < stretch[2]]
        if len(stretches) > DIAGNOSTIC_LINES:
            stretches = [stretch for stretch in stretches if _is_telling(text.of(stretch))]
        yield from ((Mark.DIAGNOSTIC, stretch) for stretch in stretches)


def _is_telling(text: str) -> bool:
    return bool(
        _STATUS.search(text) or _REPLY.search(text) or phrases.UNDELIVERED.search(phrases.small(text))
    )


def _codes(page: Page, found: list[Found], report: Report) -> Iterator[Found]:
    """Yield the codes within the diagnostics: the statuses of the report, and replies where these say nothing."""
    told = {str(one.status) for one in report.recipients}
    is_bare = any(one.status is None or one.status.is_bare for one in report.recipients)
    for what, (index, begin, end) in found:
        if what is not Mark.DIAGNOSTIC:
            continue
        text = page.lines[index].text
        for match in _STATUS.finditer(text, begin, end):
            if str(StatusCode.find(match[0])) in told:
                yield Mark.STATUS, (index, match.start(), match.end())
        if is_bare and (reply := _REPLY.search(text, begin, end)):
            yield Mark.STATUS, (index, reply.start(), reply.end())


# --- which delivery it may speak of ------------------------------------------------------------------------


def _tokens(page: Page, report: Report) -> Iterator[Found]:
    for clue in correlate.clues(report):
        if clue.carrier in {Carrier.RETURN_PATH, Carrier.UNSUBSCRIBE}:
            fields = [field for field in page.header if field.name in _ADDRESSED]
            places = [stretch for field in fields for stretch in field.lines]
        else:
            places = [*page.identifiers]
        for index, begin, end in places:
            text = page.lines[index].text.lower()
            at = text.find(clue.token, begin, end)
            if at >= 0:
                yield Mark.TOKEN, (index, at, at + len(clue.token))
