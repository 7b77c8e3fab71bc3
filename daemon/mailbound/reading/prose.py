"""Bounces that are no DSN: the texts of mail systems, read for the recipients that they name.

Only the mail's own words are read, never the message that it gives back, and only where a sentence says that
something was not delivered: behind such a sentence stand the recipients, each at the beginning of a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailbound.model import Action
from mailbound.reading.mail import ADDRESS, Mail, addresses
from mailbound.reading.phrases import GAVE_UP, LATER, UNDELIVERED, any_of
from mailbound.reading.report import RecipientReport
from mailbound.status import StatusCode

# Who speaks, by a sentence that only this one uses. It gives the report its name; the reading is the same for all.
_SPEAKERS = {
    "qmail": any_of(r"this is the (?:qmail-send|\S+) program at|message from the qmail"),
    "exim": any_of(
        r"created automatically by mail delivery software|a message that you sent (?:could|has) not"
    ),
    "postfix": any_of(r"this is the (?:postfix program|mail system at host)"),
    "sendmail": any_of(r"-{3,} (?:the following addresses had|transcript of session follows)"),
    "dma": any_of(r"this is the dragonfly mail agent"),
    "exchange": any_of(r"did not reach (?:\w+ ){1,5}recipient|microsoft exchange|office 365"),
    "gmail": any_of(r"delivery to the following recipients? (?:has been|failed)|googlemail"),
}

_BEGINS = re.compile(
    rf"""(?x) ^ (?:>>>)? [\s*•|\-\[\(]* (?:(?P<label>[^:=@<>"]{{1,40}})[:=][ \t]*(?:rfc822;[ ]*)?)? (?:(?i:smtp):)?
        [<"'“\[(]* (?P<address>{ADDRESS.pattern}) (?P<rest>.*)"""
)
# What stands before a colon and an address that is no recipient.
_OTHER_LABEL = any_of(
    r"from|send|sender|contact|help|support|cc\b|reply|by\b|postmaster|admin|question|see\b|url|http",
    r"return|subject|date|message-?id|queue|host|server|relay|write to|forward|please|call|phone|web",
)
# qmail and Postfix: so plain that no sentence need say that something failed.
_STRICT = re.compile(rf"(?m)^<(?P<address>{ADDRESS.pattern})>:(?P<rest>.*)")
_TRANSCRIPT = re.compile(rf"^[\s<>.]*[45]\d\d[ -].*?<?(?P<address>{ADDRESS.pattern})>?(?P<rest>.*)")
_INLINE = re.compile(
    r"(?i)(?:\bto|recipient|address|user|for|mailbox|account|an|à)[:\s]+[<\"'(\[]*"
    rf"(?P<address>{ADDRESS.pattern})(?P<rest>.*)"
)
_REPLY = re.compile(r"(?<![\w.])[45]\d\d[ -]\S")
_NOBODY = any_of(
    r"postmaster|mailer-daemon|abuse|hostmaster|webmaster|support|help(?:desk)?|noreply|no-reply",
    prefix=r"\A",
    suffix="@",
)

SECTION_LIMIT = 2000  # characters of a recipient's text that are kept


def read(mail: Mail) -> tuple[str, tuple[RecipientReport, ...]]:
    """Return the speaker and a report for each recipient that the mail's own words name; ("", ()) if none."""
    words = mail.words
    failed = [name for value in mail.headers.all("x-failed-recipients") for name in addresses(value)]
    if not failed and not any(
        p.search(text) for p in (UNDELIVERED, _STRICT) for text in (words, mail.subject)
    ):
        return "", ()
    said = dict(_sections(words, mail))
    if failed:  # Exim, Gmail: the list is theirs, the reasons stand in the text
        said = {name: said.get(name, mail.said_of(name)) for name in failed}
    if not said:
        return "", ()
    speaker = next((name for name, pattern in _SPEAKERS.items() if pattern.search(words)), "plain")
    action = _action(mail)
    if len(said) == 1:  # the reason may stand anywhere
        said = {name: text if _says_why(text) else words for name, text in said.items()}
    return speaker, tuple(_report(name, text, action) for name, text in said.items())


def _action(mail: Mail) -> Action:
    early = f"{mail.subject}\n{mail.words[:1500]}"
    return Action.DELAYED if LATER.search(early) and not GAVE_UP.search(early) else Action.FAILED


def _says_why(text: str) -> bool:
    return bool(StatusCode.find(text) or _REPLY.search(text) or UNDELIVERED.search(text))


def _report(name: str, text: str, action: Action) -> RecipientReport:
    text = " ".join(text[:SECTION_LIMIT].split())
    return RecipientReport(
        final_recipient=name, action=action, status=StatusCode.find(text), diagnostic_code=text
    )


def _sections(words: str, mail: Mail) -> Iterator[tuple[str, str]]:
    """Yield each recipient with the lines that speak of it."""
    name, lines = "", []
    opening = UNDELIVERED.search(words)
    begin = opening.start() if opening else 0 if UNDELIVERED.search(mail.subject) else len(words)
    seen: set[str] = set()
    at = 0
    for line in words.split("\n"):
        at += len(line) + 1
        match = _recipient_line(line, is_open=at > begin) if "@" in line else None
        if match and (match.re is _STRICT or is_recipient(match["address"], mail)):
            found = match["address"].rstrip(".").strip("'")
            if found.lower() == name.lower() or found.lower() in seen:
                lines.append(line)
                continue
            if name:
                yield name, "\n".join(lines)
            name, lines = found, [match["rest"].lstrip(">:)\"' \t")]
            seen.add(found.lower())
        elif name:
            lines.append(line)
    if name:
        yield name, "\n".join(lines)


def _recipient_line(line: str, *, is_open: bool) -> re.Match[str] | None:
    line = line[:1000]
    if line.startswith("> "):  # somebody quotes a report
        return None
    match = _STRICT.match(line)
    if match or not is_open:
        return match
    match = _BEGINS.match(line)
    if match and not (match["label"] and _OTHER_LABEL.search(match["label"])):
        return match
    return _TRANSCRIPT.match(line) or (_INLINE.search(line) if UNDELIVERED.search(line) else None)


def is_recipient(address: str, mail: Mail) -> bool:
    """Tell whether a named address may be a recipient: not ours, to whom it is sent, nor one that gives help."""
    return address.lower() not in mail.parties and not _NOBODY.match(address)
