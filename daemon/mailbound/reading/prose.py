"""Bounces that are no DSN: the texts of mail systems, read for the recipients that they name.

Only the mail's own words are read, never the message that it gives back, and only where a sentence says that
something was not delivered: behind such a sentence stand the recipients, each at the beginning of a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailbound.model import Action
from mailbound.reading.mail import ADDRESS, Mail, addresses
from mailbound.reading.report import RecipientReport
from mailbound.status import StatusCode

# Who speaks, by a sentence that only this one uses. It gives the report its name; the reading is the same for all.
_SPEAKERS = (
    (
        "qmail",
        re.compile(r"(?i)this is the qmail-send program|this is the \S+ program at|message from the qmail"),
    ),
    (
        "exim",
        re.compile(
            r"(?i)created automatically by mail delivery software|a message that you sent (?:could not|has not)"
        ),
    ),
    ("postfix", re.compile(r"(?i)this is the (?:postfix program|mail system at host)")),
    ("sendmail", re.compile(r"(?i)-{3,} (?:the following addresses had|transcript of session follows)")),
    (
        "exchange",
        re.compile(
            r"(?i)did not reach (?:some or all of )?the (?:intended )?recipient|microsoft exchange|office 365"
        ),
    ),
    (
        "gmail",
        re.compile(
            r"(?i)delivery to the following recipients? (?:has been delayed|failed permanently)|googlemail"
        ),
    ),
)

_UNDELIVERED = re.compile(
    r"""(?ix) (?:could|can|was|were|has|have|is|are|may|will)(?:[ ]*not|n['’]t|not)[ ](?:yet[ ])?(?:been[ ]|be[ ])?(?:successfully[ ])?(?:deliver|reach|sent|process|accept|complete)
      | (?:not|never|n['’]t)[ ](?:yet[ ])?(?:been[ ]|be[ ]|able[ ]to[ ](?:be[ ])?)?(?:deliver|reach|sen[dt]\b)
      | undeliver | un[- ]?deliverable | nondeliver | unable[ ]to[ ](?:deliver|send|relay|complete) | deliver\w*[ ](?:\w+[ ]){0,6}fail | fail\w*[ ](?:\w+[ ]){0,4}(?:deliver|recipient|address)
      | (?:fatal|permanent|delivery|transient)[ ](?:\S+[ ])?errors? | follow(?:ing)?[ ](?:\w+[ ]){0,2}(?:address|recipient|destination|user)
      | (?:unknown|invalid|bad|no[ ]such)[ ](?:local[ ])?(?:user|recipient|address|mailbox|account) | (?:user|recipient|mailbox|account|address)\w*[ ](?:is[ ])?(?:unknown|not[ ](?:found|known|exist)|does(?:[ ]not|n['’]t)[ ]exist|rejected)
      | did[ ]not[ ](?:reach|arrive) | (?:has|have)[ ]been[ ](?:delayed|rejected|refused|returned) | (?:was|were)[ ](?:rejected|returned|refused|bounced) | still[ ]not
      | error[ ](?:\w+[ ]){0,4}deliver | (?:problem|trouble)\w*[ ](?:\w+[ ]){0,3}deliver | returned[ ](?:to[ ](?:you|sender)|mail|because)
      | nicht[ ](?:zugestellt|zustellbar|erreicht) | unzustellbar | n['’]a[ ]pas[ ]pu | pas[ ][eé]t[eé][ ](?:remis|d[eé]livr) | no[ ](?:se[ ])?(?:ha[ ])?pud?[io]\w*[ ](?:ser[ ])?entrega | no[ ]pudo
      | non[ ](?:[eè]|[eè]['’])[ ]?stato[ ](?:possibile|consegnat) | n[aã]o[ ](?:p[oô]de|foi)[ ] | доставлен | доставить | 配信(?:でき|不能) | 送信(?:でき|エラー) | 届(?:き|け) | 无法(?:投递|送达|发送) | 退信 | not[ ]reached"""
)
_LATER = re.compile(
    r"""(?ix) (?:has|have|was|were|is|been)[ ](?:been[ ])?delayed | not[ ]yet[ ](?:been[ ])?(?:deliver|accept) | still[ ](?:being[ ]retried|trying|in[ ]the[ ]queue|not)
      | will[ ](?:be[ ])?(?:continue|keep|retr|try|attempt) | (?:this[ ]is[ ])?(?:a[ ])?warning[ ](?:message[ ])?only | do[ ]not[ ]need[ ]to[ ]re-?send | delivery[ ]attempts[ ]will | no[ ]action[ ]is[ ]required | \(delay\)"""
)
_GAVE_UP = re.compile(
    r"(?i)gave up|giv(?:en|ing) up|failed permanently|permanent(?:ly)? (?:fail|error|fatal)|will not be retried|returning message to sender"
    r"|no further attempts|retry time(?:out| limit) (?:exceeded|has)|undeliverable|too long|expired"
)

_BEGINS = re.compile(
    rf"""(?x) ^ [\s*•|\-\[\(]* (?:(?P<label>[^:=@<>"]{{1,40}})[:=][ \t]*(?:rfc822;[ ]*)?)? (?:(?i:smtp):)?
        [<"'“\[(]* (?P<address>{ADDRESS.pattern}) (?P<rest>.*)"""
)
# What stands before a colon and an address that is no recipient.
_OTHER_LABEL = re.compile(
    r"(?i)from|send|sender|contact|help|support|cc\b|reply|by\b|postmaster|admin|question|see\b|url|http|return|subject|date"
    r"|message-?id|queue|host|server|relay|write to|forward|please|call|phone|web"
)
_STRICT = re.compile(rf"^<(?P<address>{ADDRESS.pattern})>:?(?P<rest>.*)")
_TRANSCRIPT = re.compile(rf"^[\s<>.]*[45]\d\d[ -].*?<?(?P<address>{ADDRESS.pattern})>?(?P<rest>.*)")
_INLINE = re.compile(
    rf"(?i)(?:\bto|recipient|address|user|for|mailbox|account|an|à)[:\s]+[<\"'(\[]*(?P<address>{ADDRESS.pattern})(?P<rest>.*)"
)
_REPLY = re.compile(r"(?<![\w.])[45]\d\d[ -]\S")
_NOBODY = re.compile(
    r"(?i)^(?:postmaster|mailer-daemon|abuse|hostmaster|webmaster|support|help(?:desk)?|noreply|no-reply)@"
)

SECTION_LIMIT = 2000  # characters of a recipient's text that are kept


def read(mail: Mail) -> tuple[str, tuple[RecipientReport, ...]]:
    """Return the speaker and a report for each recipient that the mail's own words name; ("", ()) if none."""
    words = mail.words
    failed = [name for value in mail.headers.all("x-failed-recipients") for name in addresses(value)]
    if not failed and not _UNDELIVERED.search(words) and not _UNDELIVERED.search(mail.subject):
        return "", ()
    said = dict(_sections(words, mail))
    if failed:  # Exim, Gmail: the list is theirs, the reasons stand in the text
        said = {name: said.get(name, mail.said_of(name)) for name in failed}
    if not said:
        return "", ()
    speaker = next((name for name, pattern in _SPEAKERS if pattern.search(words)), "plain")
    action = _action(mail)
    if len(said) == 1:  # the reason may stand anywhere
        said = {name: text if _says_why(text) else words for name, text in said.items()}
    return speaker, tuple(_report(name, text, action) for name, text in said.items())


def _action(mail: Mail) -> Action:
    early = f"{mail.subject}\n{mail.words[:1500]}"
    return Action.DELAYED if _LATER.search(early) and not _GAVE_UP.search(early) else Action.FAILED


def _says_why(text: str) -> bool:
    return bool(StatusCode.find(text) or _REPLY.search(text) or _UNDELIVERED.search(text))


def _report(name: str, text: str, action: Action) -> RecipientReport:
    text = " ".join(text[:SECTION_LIMIT].split())
    return RecipientReport(final_recipient=name, action=action, status=StatusCode.find(text), diagnostic_code=text)


def _sections(words: str, mail: Mail) -> Iterator[tuple[str, str]]:
    """Yield each recipient with the lines that speak of it."""
    ours = {address.lower() for address in (*addresses(mail.headers.get("to")), mail.sender)}
    name, lines, is_open = "", [], bool(_UNDELIVERED.search(mail.subject))
    seen: set[str] = set()
    for line in words.split("\n"):
        says_so = len(line) < 1000 and bool(_UNDELIVERED.search(line))
        match = _recipient_line(line, is_open=is_open, says_so=says_so) if "@" in line else None
        is_open = is_open or says_so
        if match and _is_recipient(match["address"], ours):
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


def _recipient_line(line: str, *, is_open: bool, says_so: bool) -> re.Match[str] | None:
    line = line[:1000]
    if line.startswith("> "):  # somebody quotes a report
        return None
    match = _STRICT.match(line)
    if match or not (is_open or says_so):
        return match
    match = _BEGINS.match(line)
    if match and not (match["label"] and _OTHER_LABEL.search(match["label"])):
        return match
    match = _TRANSCRIPT.match(line) if is_open else None
    return match or (_INLINE.search(line) if says_so else None)


def _is_recipient(address: str, ours: set[str]) -> bool:
    return address.lower() not in ours and not _NOBODY.match(address)
