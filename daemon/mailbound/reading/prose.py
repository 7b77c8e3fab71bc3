"""Bounces that are no DSN: the texts of mail systems, read for the recipients that they name.

Only the mail's own words are read, never the message that it gives back, and only where a sentence says that
something was not delivered: behind such a sentence stand the recipients, each at the beginning of a line.
"""

from __future__ import annotations

import re

from mailbound.model import Action
from mailbound.reading import naming, phase
from mailbound.reading.mail import Mail, addresses
from mailbound.reading.phrases import (
    DELIVERED,
    GAVE_UP,
    LATER,
    LIST_REFUSES,
    NOT_DELIVERED,
    UNDELIVERED,
    small,
)
from mailbound.reading.report import RecipientReport
from mailbound.status import StatusCode

_BY_GMAIL = re.compile(r"delivery to the following recipients? (?:has been|failed)")

# Who speaks, by a sentence that only this one uses. It gives the report its name; the reading is the same for all.
# A pattern stands only where the words before it are not all that counts, for words are found in no time.
_SPEAKERS: tuple[tuple[str, str, re.Pattern[str] | None], ...] = (
    ("postfix", "this is the postfix program at host", None),
    ("postfix", "this is the mail system at host", None),
    ("qmail", " program at", re.compile(r"this is the \S+ program at")),
    ("qmail", "message from the qmail", None),
    ("exim", "created automatically by mail delivery software", None),
    ("exim", "a message that you sent could not", None),
    ("exim", "a message that you sent has not", None),
    ("sendmail", "--- the following addresses had", None),
    ("sendmail", "--- transcript of session follows", None),
    ("dma", "this is the dragonfly mail agent", None),
    ("exchange", "did not reach ", re.compile(r"did not reach (?:\w+ ){1,5}recipient")),
    ("exchange", "microsoft exchange", None),
    ("exchange", "office 365", None),
    ("gmail", "delivery to the following recipient", _BY_GMAIL),
    ("gmail", "googlemail", None),
)

_REPLY = re.compile(r"[45](?<![\w.].)\d\d[ -]\S")  # the digit first: it is quick to look for

_COMMAND = ("|", "/", ":", "<|", "</")

SECTION_LIMIT = 2000  # characters of a recipient's text that are kept
OPENING_LIMIT = 1500  # characters at the beginning, where a mailer says what became of the message


def read(mail: Mail) -> tuple[str, tuple[RecipientReport, ...]]:
    """Return the speaker and a report for each recipient that the mail's own words name; ("", ()) if none."""
    may_be_list = "of this" in mail.small_words or "duplicated" in mail.small_words
    if may_be_list and (match := LIST_REFUSES.search(mail.small_words)):
        name = mail.words[match.start("address") : match.end("address")]
        return "list", _reports(mail, {name: mail.words})
    listed = [name for value in mail.headers.all("x-failed-recipients") for name in addresses(value)]
    begin = _opening(mail)
    if begin is None and not listed and not naming.STRICT.search(mail.words):
        return "", ()
    said = _sections(mail, len(mail.words) + 1 if begin is None else begin)  # nothing is open then
    if not said and begin:  # the names come first, then the sentence
        said = _sections(mail, -1)
    if listed:  # Exim, Gmail: the list is theirs, the reasons stand in the text
        said = {name: said.get(name, mail.said_of(name)) for name in listed}
    return _speaker(mail), _reports(mail, said)


def guess(mail: Mail) -> tuple[str, tuple[RecipientReport, ...]]:
    """Return the same for recipients that no line names by itself: see `naming.weakly`."""
    begin = _opening(mail)
    if begin is None:
        return "", ()
    return _speaker(mail), _reports(mail, {name: mail.said_of(name) for name in naming.weakly(mail, begin)})


def _reports(mail: Mail, said: dict[str, str]) -> tuple[RecipientReport, ...]:
    if len(said) == 1:  # the reason may stand anywhere
        says = _says_code if _says_code(mail.words) else _says_why
        said = {name: text if says(text) else mail.words for name, text in said.items()}
    action = action_of(mail)
    return tuple(_report(name, text, action) for name, text in said.items())


def action_of(mail: Mail) -> Action:
    """Return what the mail's own words say became of the message."""
    early = f"{mail.small_subject}\n{mail.small_words[:OPENING_LIMIT]}"
    if LATER.search(early) and not GAVE_UP.search(early):
        return Action.DELAYED
    if _REPLY.search(mail.words):
        return Action.FAILED
    arrived = DELIVERED.search(early)
    if arrived and not NOT_DELIVERED.search(early[: arrived.end()]):
        return Action.DELIVERED
    return Action.FAILED


def tells(mail: Mail) -> bool:
    """Tell whether the mail's own words or its subject say what became of a message."""
    return _opening(mail) is not None


def _opening(mail: Mail) -> int | None:
    """Return where the first sentence that tells of a delivery begins, or None if none does."""
    for pattern in (UNDELIVERED, LATER, DELIVERED):
        match = pattern.search(mail.small_words)
        if match:
            return match.start()
    if UNDELIVERED.search(mail.small_subject):
        return 0
    replies = mail.is_by_system and (_REPLY.search(mail.words) or StatusCode.find(mail.words[:OPENING_LIMIT]))
    return 0 if replies else None  # it is written in a language that we do not know


def _speaker(mail: Mail) -> str:
    words = mail.small_words[:3000]
    for name, said, pattern in _SPEAKERS:
        if said in words and (pattern is None or pattern.search(words)):
            return name
    return "plain"


def _says_why(text: str) -> bool:
    return bool(_says_code(text) or UNDELIVERED.search(small(text)))


def _says_code(text: str) -> bool:
    return bool(StatusCode.find(text) or _REPLY.search(text))


def _report(name: str, text: str, action: Action) -> RecipientReport:
    step = phase.told(small(text[:SECTION_LIMIT]))
    text = " ".join(text[:SECTION_LIMIT].split())
    status = StatusCode.find(text) if action is Action.DELIVERED else StatusCode.find_failure(text)
    return RecipientReport(
        final_recipient=name, action=action, status=status, diagnostic_code=text, phase=step
    )


def _sections(mail: Mail, begin: int) -> dict[str, str]:
    """Return each recipient with the lines that speak of it."""
    lines_of: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    lines: list[str] | None = None
    before = ""
    end = 0
    for line in mail.words.split("\n"):
        end += len(line) + 1
        match = naming.in_line(line, is_open=end > begin) if "@" in line else None
        if match and (match.re is naming.STRICT or naming.is_recipient(match["address"], mail)):
            found = [match["address"].rstrip(".").strip("'")]
            found += [name for name in naming.more(match["rest"]) if naming.is_recipient(name, mail)]
            fresh = [name for name in found if name.lower() not in names]
            if match.re is naming.BEHIND and not before.lstrip().startswith(_COMMAND):
                fresh = []  # the address that the line before names is the later one
            if fresh and len(names) < naming.NAMES_LIMIT:
                lines = [match["rest"].lstrip(">:)\"' \t")]
                for name in fresh:
                    names[name.lower()] = name
                    lines_of[name] = lines
                continue
        if line.strip():
            before = line
        if lines is not None:
            lines.append(line)
    return {name: "\n".join(text) for name, text in lines_of.items()}
