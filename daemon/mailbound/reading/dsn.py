"""Delivery status notifications (RFC 3464, its forerunner RFC 1894, and RFC 6533 for non-ASCII addresses)."""

from __future__ import annotations

import re

from mailbound.model import Action
from mailbound.reading import phase
from mailbound.reading.mail import Mail, without_comments
from mailbound.reading.phrases import small
from mailbound.reading.report import RecipientReport
from mailbound.reading.structure import TEXT_LIMIT, text_of, with_lf
from mailbound.status import StatusCode

TYPES = frozenset({"message/delivery-status", "message/global-delivery-status"})

ADDRESS_LIMIT = 1000  # characters of a field in which an address is looked for
RECIPIENTS_LIMIT = 1000  # of one report: each costs a search through the words, and a row
FIELD_LIMIT = 8192  # characters of a field, unfolded, that are read

Fields = dict[str, str]
"""One group of a delivery status: its fields by lower-case name. Of two of one name the first stands."""

Status = tuple[Fields, tuple[RecipientReport, ...]]
"""What a delivery status says of the message, and of each recipient."""

_ACTIONS = {
    "failed": Action.FAILED,
    "failure": Action.FAILED,
    "fail": Action.FAILED,
    "error": Action.FAILED,  # OpenSMTPD
    "expired": Action.FAILED,
    "delayed": Action.DELAYED,
    "delay": Action.DELAYED,
    "delivered": Action.DELIVERED,
    "relayed": Action.RELAYED,
    "expanded": Action.EXPANDED,
}
_BY_CLASS = {2: Action.DELIVERED, 4: Action.FAILED, 5: Action.FAILED}

NAMES_RECIPIENT = frozenset({"final-recipient", "original-recipient", "x-actual-recipient"})
OF_RECIPIENT = NAMES_RECIPIENT | {"action", "status", "diagnostic-code", "remote-mta"}

_IN_TEXT = re.compile(r"(?m)^(?:reporting-mta|final-recipient)[ \t]*:")
_NO_ADDRESS = "@/|:"  # a route without its end, a file, a command, a list of aliases: the words may say more
_FIELD = re.compile(r"([A-Za-z][\w-]{0,80})[ \t]*:[ \t]*(.*)", re.DOTALL)
_WORD_ENDS = re.compile(r"[\s(;,]")
_TYPE = re.compile(r"[\w.-]{1,40}\Z")
_UNITEXT = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")
_CUT_ESCAPE = re.compile(r"\\(?:x(?:\{[0-9A-Fa-f]{0,6})?)?\Z")
_LOCAL_NAME = re.compile(r"[^\W_][\w.+=&'!#$%*/?^{}~ -]{0,127}\Z")
_XTEXT = re.compile(r"\+([0-9A-F]{2})")
_QUOTED_AT = re.compile(r'<?\s*("(?:[^"\\]|\\.)*"@[^\s<>;,]+|[^\s<>;,"()]+@[^\s<>;,"()]+)')


def read(mail: Mail) -> Status:
    """Return the per-message fields and a report for each recipient; ({}, ()) if the mail is no DSN.

    Only a report that stands at the top of the mail counts: one in a forwarded message speaks of somebody else's
    mail. A recipient whose Action is unknown is left out (RFC 3464 §2.3.3 lists them all).
    """
    groups: list[Fields] = []
    for part in mail.leaves if mail.mentions_part(b"delivery-status") else ():
        if part.content_type in TYPES:
            groups += split(text_of(with_lf(part.content[:TEXT_LIMIT])))
    if groups and mail.is_discussion and not mail.may_report:
        return {}, ()  # somebody forwards one, its parts laid out in a mail of their own
    if not groups and mail.may_report:  # its MIME structure was lost on the way: the fields stand in the text
        small_words = mail.small_words
        is_likely = "reporting-mta" in small_words or "final-recipient" in small_words
        begin = _IN_TEXT.search(small_words) if is_likely else None
        groups = split(mail.words[begin.start() :]) if begin else []
    return of_groups(groups, mail) if groups else ({}, ())


def of_groups(groups: list[Fields], mail: Mail) -> Status:
    """Return what `read` does, from groups that were found already."""
    about_message: Fields = {}
    about_recipients: list[Fields] = []
    for group in groups:
        if NAMES_RECIPIENT & group.keys():
            about_recipients.append(group)
        elif about_recipients and "action" in group and "action" not in about_recipients[-1]:
            about_recipients[-1] |= group  # an empty line in the middle of a group
        if "reporting-mta" in group or not about_recipients:
            about_message = group | about_message
    is_only = len(about_recipients) == 1
    found = (_recipient(fields, mail, is_only=is_only) for fields in about_recipients[:RECIPIENTS_LIMIT])
    reports = tuple(report for report in found if report)
    if is_only and not reports:  # a file or a command: the words may name whom it was for
        about_message = {"status": about_recipients[0].get("status", "")} | about_message
    return about_message, reports


def split(text: str) -> list[Fields]:
    """Return the groups of fields in a delivery status (RFC 3464 §2.1), whose lines end with LF.

    Two empty lines are one, and a missing one is put in where a recipient begins anew (Dovecot leaves it out).
    """
    groups: list[Fields] = [{}]
    name = ""
    for line in text.split("\n"):
        if not line.strip():
            groups.append({})
        elif line[0] in " \t" and name in groups[-1]:
            if len(groups[-1][name]) < FIELD_LIMIT:
                groups[-1][name] += " " + line.strip()
        elif match := _FIELD.match(line):
            name = match[1].lower()
            if name in groups[-1] and name in OF_RECIPIENT:
                groups.append({})
            groups[-1].setdefault(name, match[2].strip())
    return [group for group in groups if group]


def typed(value: str) -> tuple[str, str]:
    """Split `type; value` (RFC 3464 §2.1.2). The type is lower case, "" if missing."""
    stated, semicolon, rest = value.partition(";")
    kind = stated.strip()
    if semicolon and _TYPE.match(kind):
        return kind.lower(), rest.strip()
    return "", value.strip()


def recipient_address(value: str) -> str:
    """Return the address in a recipient field, "" if it holds none.

    Angle brackets and comments are dropped; the `utf-8` forms (RFC 6533 §3) and xtext (RFC 3461 §4) are undone.
    """
    value = value[:ADDRESS_LIMIT]
    _, text = typed(_CUT_ESCAPE.sub("", value) if "\\" in value else value)
    if "\\x{" in text:
        text = _UNITEXT.sub(_character, text)
    elif "@" not in text and "+40" in text:
        text = _XTEXT.sub(_character, text)
    match = _QUOTED_AT.search(text)
    if match:
        return match[1]
    return without_comments(text).strip("<>;,\"' \t").partition(" ")[0]


def _character(match: re.Match[str]) -> str:
    number = int(match[1], 16)
    return chr(number) if 0x20 < number < 0xD800 or 0xDFFF < number < 0x110000 else ""


def _recipient(fields: Fields, mail: Mail, *, is_only: bool) -> RecipientReport | None:
    final = recipient_address(fields.get("final-recipient", "") or fields.get("x-actual-recipient", ""))
    original = recipient_address(fields.get("original-recipient", ""))
    if "@" not in final and "@" in original:
        final = original
    if final and "@" not in final:
        final = _completed(final, mail)
    stated = StatusCode.find(without_comments(fields.get("status", "")))
    action = _action(fields.get("action", ""), stated)
    if action is None or not final or final[0] in _NO_ADDRESS:
        return None
    if "\ufffd" in final or not final.isprintable():  # octets of something else, read as a text
        return None
    if "@" not in final and not _LOCAL_NAME.match(final):
        return None
    kind, text = typed(fields.get("diagnostic-code", ""))
    if not text and action in (Action.FAILED, Action.DELAYED):
        text = mail.said_of(final) or mail.said_of(original)
    if not text and is_only:
        text = mail.transcript
    if not text and is_only and (stated is None or stated.is_bare):
        text = mail.words[:2000]
    return RecipientReport(
        final_recipient=final,
        original_recipient=original,
        action=action,
        status=_status(stated, text),
        diagnostic_code=" ".join(text.split()),
        diagnostic_type=kind,
        remote_mta=typed(fields.get("remote-mta", ""))[1],
        last_attempt_date=fields.get("last-attempt-date", ""),
        will_retry_until=fields.get("will-retry-until", ""),
        final_log_id=fields.get("final-log-id", ""),
        phase=phase.told(small(text)) or _phase(final, mail),
    )


def _phase(name: str, mail: Mail) -> phase.Phase | None:
    """Return what the words add to the fields: Postfix writes there, and nowhere else, what was answered."""
    if not mail.mentions(b"in reply to"):
        return None
    return phase.told(small(mail.said_of(name)))


def _completed(name: str, mail: Mail) -> str:
    """Return the address whose local part a mailer wrote without its domain, if the returned message tells it."""
    full = [target for target in mail.targets if target.lower().startswith(f"{name.lower()}@")]
    return full[0] if len(full) == 1 else name


def _action(value: str, status: StatusCode | None) -> Action | None:
    word = value.strip().lower()
    if word:
        return _ACTIONS.get(word) or _ACTIONS.get(_WORD_ENDS.split(word, maxsplit=1)[0])
    return _BY_CLASS[status.class_] if status else Action.FAILED


def _status(stated: StatusCode | None, text: str) -> StatusCode | None:
    """Return the Status, but the code in the diagnostic where the Status says no more than its class."""
    if stated is None or stated.is_bare:
        failed = stated is None or stated.class_ != 2
        return (StatusCode.find_failure(text) if failed else StatusCode.find(text)) or stated
    return stated
