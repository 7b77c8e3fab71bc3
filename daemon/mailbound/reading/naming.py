"""How a line of a report names a recipient: the forms in which mailers write them, and what only looks alike."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailbound.reading.mail import ADDRESS, Mail
from mailbound.reading.phrases import UNDELIVERED, any_of, small

LINE_LIMIT = 1000  # characters of a line that are looked at
NAMES_LIMIT = 1000  # recipients of one report

# qmail, Postfix and many more: so plain that no sentence need say that something failed.
STRICT = re.compile(rf"(?m)^<(?P<address>{ADDRESS.pattern})>:(?P<rest>.*)")

# Possessive and bounded, so that a line of nothing but brackets is no work.
_BEGINS = re.compile(
    rf"""(?x) ^ (?:>>>)? [\s*•|\-\[\(]*+ (?:(?P<label>[^:\uff1a=@<>"]{{1,40}})[:\uff1a=][ \t]*+)?
        (?: [<"'“\[(]{{0,3}} (?i:smtp:|smtp=|rfc822;) [ \t]*+ )? [<"'“\[(]{{0,3}}
        (?P<address>{ADDRESS.pattern}) (?P<rest>.*)"""
)
_MORE = re.compile(rf"[>\"'”)\]\s]*[,;][\s<\"'“(\[]*(?P<address>{ADDRESS.pattern})")
_TRANSCRIPT = re.compile(rf"^[\s<>.]*[45]\d\d[ -].*?<?(?P<address>{ADDRESS.pattern})>?(?P<rest>.*)")
_INLINE = re.compile(
    r"(?i)(?:\b(?:to|recipient|address|user|for|mailbox|account|an|a|à|aan|till)|до|给|給|、|\uff08|errors?:)"
    r"[:\uff1a\s]*(?:['\"][^'\"<>@]{1,60}['\"]\s)?[<\"'“(\[]*"
    rf"(?P<address>{ADDRESS.pattern})(?P<rest>.*)"
)
_BY_NAME = re.compile(
    rf"^[\s*•]*+(?P<label>['\"]?[^\W\d_][\w .,'\u2019\"-]{{0,60}}?)[ ]?[(<](?P<address>{ADDRESS.pattern})[)>]"
    r"(?P<rest>(?:<mailto:[^<>]*>)?\s*)$"
)
BEHIND = re.compile(
    rf"(?i)^\s*\((?:ultimately )?generated (?:from|by) <?(?P<address>{ADDRESS.pattern})>?\)?(?P<rest>.*)"
)
_X400 = re.compile(rf"(?i)^.{{0,300}}?\bsmtp=(?P<address>{ADDRESS.pattern})(?P<rest>.*)")
_ENVELOPE = re.compile(rf"(?i)\brcpt to:[ \t]*<?(?P<address>{ADDRESS.pattern})")
_LOCAL = re.compile(r"[ \t]*<?(?P<name>[\w.+-]{1,64})>?(?:[ \t]*\([^()]*\))?[ \t]*\Z")

# What stands before a colon and an address that is no recipient.
_OTHER_LABEL = any_of(
    r"from|send|sender|contact|help|support|cc\b|reply|by\b|postmaster|admin|question|see\b|url|http",
    r"return|subject|date|message-?id|queue|host|server|relay|write to|forward|please|call|phone|web",
    r"^\W*(?:von|de|da|van|från|od|от)\s*$|absender|exp[eé]diteur|remitente|mittente|afzender|отправител|发件人|差出人",
)
_NOBODY = any_of(
    r"postmaster|mailer-daemon|abuse|hostmaster|webmaster|support|help(?:desk)?|noreply|no-reply",
    prefix=r"\A",
    suffix="@",
)


def in_line(line: str, *, is_open: bool) -> re.Match[str] | None:
    """Return the match of the first recipient, with groups `address` and `rest`, or None.

    `is_open` says that a sentence before it tells of a failure; without that only the plainest form counts.
    """
    line = line[:LINE_LIMIT]
    if line.startswith("> "):  # somebody quotes a report
        return None
    match = STRICT.match(line)
    if match or not is_open:
        return match
    for form in (_BEGINS, _BY_NAME):
        match = form.match(line)
        if match and not (match["label"] and _OTHER_LABEL.search(small(match["label"]))):
            return match
    return (
        _TRANSCRIPT.match(line)
        or (_INLINE.search(line) if UNDELIVERED.search(small(line)) else None)
        or _X400.match(line)
        or BEHIND.match(line)
    )


def more(rest: str) -> Iterator[str]:
    """Yield the recipients that follow the first on its line, as in `a@x, b@y`."""
    at = 0
    while match := _MORE.match(rest, at):
        yield match["address"].rstrip(".")
        at = match.end()


def is_recipient(address: str, mail: Mail) -> bool:
    """Tell whether a named address may be a recipient: not ours, to whom it is sent, nor one that gives help.

    Whoever the returned message was for is one, whatever the name.
    """
    low = address.lower()
    if low in mail.parties:
        return False
    return not _NOBODY.match(low) or any(low == target.lower() for target in mail.targets)


def weakly(mail: Mail, begin: int) -> list[str]:
    """Return recipients that no line names by itself, from the weightiest sign that there is; [] if none is.

    These are: the commands of a transcript; whom both the words and the returned message name; a local part at the
    beginning of a line; the only address that the returned message was for; and the only one in a system's own words.
    """
    told = [match["address"] for match in _ENVELOPE.finditer(mail.words[:100_000])]
    found = _fit(told, mail)
    if found:
        return found
    found = [target for target in mail.targets if _is_told(target, mail)]
    if found:
        return _fit(found, mail)
    local = _local_parts(mail, begin)
    if local:
        return local
    others = _fit(mail.targets, mail) or (_told(mail) if mail.is_by_system or mail.is_from_daemon else [])
    return others if len(others) == 1 else []


def _told(mail: Mail) -> list[str]:
    """Return the addresses in the words of a mail system, but for those that offer help or name the sender."""
    found: list[str] = []
    for line in mail.words[:4000].split("\n"):
        before = 0
        for match in ADDRESS.finditer(line[:LINE_LIMIT]) if "@" in line else ():
            if not _OTHER_LABEL.search(small(line[before : match.start()])):
                found.append(match[0].rstrip("."))
            before = match.end()
    return _fit(found, mail)


def _is_told(address: str, mail: Mail) -> bool:
    return small(address) in mail.small_words


def _fit(found: list[str] | tuple[str, ...], mail: Mail) -> list[str]:
    once = {address.lower(): address for address in found[:NAMES_LIMIT] if is_recipient(address, mail)}
    return list(once.values())


def _local_parts(mail: Mail, begin: int) -> list[str]:
    """Return the addresses whose local part alone stands on a line, completed by whom the message was for.

    Without a returned message a mailer that writes a bare name means one of its own domain.
    """
    found: list[str] = []
    targets = [target.lower() for target in mail.targets]
    for line in mail.words[begin : begin + 4000].split("\n")[1:]:
        match = _LOCAL.match(line)
        if not match:
            continue
        name = match["name"].lower()
        full = [target for target in targets if target.startswith(f"{name}@")]
        if len(full) == 1:
            found += full
        elif not mail.targets and line[0] in " \t" and mail.is_from_daemon and not found:
            found += [f"{match['name']}@{mail.sender.rpartition('@')[2]}"] if "@" in mail.sender else []
    return _fit(found, mail)
