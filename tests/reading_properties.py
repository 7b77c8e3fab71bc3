"""What holds of every mail that is read, whatever its octets are; and mails to begin from.

The first line of what an AssertionError says is the same for every mail that breaks a property in the same way.
"""

from __future__ import annotations

import html
import itertools
import pickle
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, fields
from datetime import UTC, datetime
from pathlib import Path

import trips
from mailbound import classify, correlate
from mailbound.classify import Rules
from mailbound.reading import Report, read, structure
from mailbound.reading.mail import Mail, without_comments
from mailbound.simulator import FORMS
from mailbound.simulator.behaviour import CATALOGUE
from mailbound.simulator.envelope import Envelope, Recipient
from mailbound.simulator.reports import write
from mailbound.simulator.reports.notice import Notice

FOLDER = Path(__file__).parent / "mails"
RULES = Rules.load()

_ENCODED = tuple(
    re.compile(form) for form in (r"\\x\{([0-9A-Fa-f]{1,6})\}", r"\\u([0-9A-Fa-f]{4})", r"\+([0-9A-F]{2})")
)
_QUOTED_LINE = re.compile(r"(?m)^[ \t]*[>|*][ \t]?")
_DEEP = 5  # messages within messages that are looked through for an address


class TooSlow(BaseException):
    """Reading took more than its time. No `except Exception` on the way may swallow it."""


def check(raw: bytes, *, seconds: float = 1.0) -> Report:
    """Return what a mail says. Raises AssertionError if a property does not hold, or whatever reading raised."""
    with within(seconds):
        report = read(raw)
        verdicts = [classify.classify(one, RULES) for one in report.recipients]
        clues = correlate.clues(report)
    assert report.why, "a report says why it is what it is"
    assert pickle.loads(pickle.dumps(report)) == report, "it crosses from one process to another"
    for one, verdict in zip(report.recipients, verdicts, strict=True):
        if one.status and one.status.class_ == 4 and not one.status.is_bare:
            assert not verdict.permanent, "nothing makes permanent what its status calls transient"
    for clue in clues:
        assert clue.token in clue.address.lower(), "a token stands in the address that brought it"
    assert_standing(report, raw)
    assert_same_after_trips(report, raw)
    for text in _texts(astuple(report)):
        assert "\0" not in text, "PostgreSQL stores no NUL"
        assert text.encode("utf-8", "replace") == text.encode("utf-8", "surrogatepass"), "no lone surrogate"
    return report


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TooSlow after so much work of the processor: how busy the machine is does not count."""

    def stop(*_: object) -> None:
        raise TooSlow(f"reading took over {seconds:g} s")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def assert_same_after_trips(report: Report, raw: bytes) -> None:
    """No way through a mailbox changes what a mail says; where its lines stay what they are, not a word of it."""
    for trip in trips.TRIPS:
        changed = trip(raw)
        if changed == raw:
            continue
        told = whole_of if trip in trips.EXACT else essence_of
        before, after = told(report), told(read(changed))
        different = ", ".join(name for name in before if before[name] != after[name])
        assert not different, f"not the same {different} after {trip.__name__}\n{before}\n{after}"


def whole_of(report: Report) -> dict[str, object]:
    """Return all of a report, by the names of its fields."""
    return {each.name: getattr(report, each.name) for each in fields(report)}


def essence_of(report: Report) -> dict[str, object]:
    """Return what a report comes to: its kind, the recipients and what became of each, and whose message it was."""
    verdicts = [classify.classify(one, RULES) for one in report.recipients]
    return {
        "kind": report.kind,
        "recipients": [(one.final_recipient, one.original_recipient) for one in report.recipients],
        "action": [one.action for one in report.recipients],
        "status": [one.status for one in report.recipients],
        "category": [verdict.category for verdict in verdicts],
        "permanence": [verdict.permanent for verdict in verdicts],
        "ids": report.returned_message_ids,
        "envid": report.original_envelope_id,
    }


def assert_standing(report: Report, raw: bytes) -> None:
    """Each address that is reported stands in the mail: as it is, or as what is encoded there is meant."""
    plain = raw.decode("utf-8", "replace").lower()
    named = {name for one in report.recipients for name in (one.final_recipient, one.original_recipient)}
    missing = {name for name in named if name.lower() not in plain}
    if missing:
        readable = "\n".join(_readable(raw)).lower()
        for name in missing:
            reader = report.part.partition(":")[0]
            assert _stands(name.lower(), readable, report), (
                f"an address of {reader} does not stand there\n{name!r}"
            )


def _stands(name: str, readable: str, report: Report) -> bool:
    if name in readable:
        return True
    local, _, domain = name.rpartition("@")  # a mailer of its own domain leaves that out, after a bare name
    return (
        report.part.startswith(("prose:", "enclosed:prose:"))
        and local in readable
        and f"@{domain}" in readable
    )


def _readable(raw: bytes, depth: int = 0) -> Iterator[str]:
    """Yield every text that a mail holds, however it is encoded."""
    for text in (structure.text_of(structure.with_lf(raw)), raw.decode("latin-1")):
        unfolded = re.sub(r"\r?\n[ \t]+", " ", text)
        yield from _meant(text)
        yield from _meant(structure.decoded_words(unfolded))
        yield _QUOTED_LINE.sub("", text)
    for leaf in structure.parse(raw).leaves():
        yield from _meant(structure.text_of(leaf.content, leaf.parameter("charset")))
        yield from _meant(structure.text_of(structure.with_lf(leaf.content)))
    for message in Mail(raw).given_back if depth < _DEEP else ():
        yield from _readable(message, depth + 1)


def _meant(text: str) -> Iterator[str]:
    """Yield what a text may stand for, by whatever it is encoded or surrounded with."""
    unwrapped = text.replace("!\n ", "")
    undone = (form.sub(_character, unwrapped) for form in _ENCODED)
    for each in (text, unwrapped, *undone):
        yield each
        yield without_comments(each)
        yield structure.plain_text(each)
        yield html.unescape(each)
        yield re.sub(r"\\(.)", r"\1", each)


def _character(match: re.Match[str]) -> str:
    """Return a character, as the readers do: what is none is left out, or shown to be none."""
    number = int(match[1], 16)
    if match[0].startswith("\\u"):
        return "\ufffd" if number == 0 or 0xD800 <= number < 0xE000 else chr(number)
    return chr(number) if 0x20 < number < 0xD800 or 0xDFFF < number < 0x110000 else ""


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _texts(each)


def seeds() -> list[bytes]:
    """Return mails to begin from: those that the tests read, and one of each that the simulator writes."""
    return [path.read_bytes() for path in sorted(FOLDER.rglob("*.eml"))] + list(simulated())


def simulated() -> Iterator[bytes]:
    """Yield a mail for each answer of the simulator, in each form that it knows."""
    content = (
        b"Message-ID: <token@sender.example>\r\nSubject: Spring\r\nFrom: Shop <shop@sender.example>\r\n"
        b"List-Unsubscribe: <mailto:bounces+unsub@sender.example?subject=out>\r\n\r\nHello\r\n"
    )
    for form, name, utf8 in itertools.product(FORMS, CATALOGUE, (False, True)):
        recipient = Recipient(f"{name}@x.example", original=f"rfc822;{name}@x.example")
        envelope = Envelope("4F2A", "bounces+t@sender.example", (recipient,), content, envid="e1", utf8=utf8)
        for answer in CATALOGUE[name].answers:
            at = datetime(2026, 3, 2, 9, 15, tzinfo=UTC)
            mail = write(Notice(answer, envelope, recipient, "relay.example", at), form)
            if mail is not None:
                yield mail
