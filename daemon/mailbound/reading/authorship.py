"""Who wrote a mail: a mail system, or people, who forward reports, paste them and answer them.

Headers that only a system sets decide where they can. Where they do not, a mail must be laid out as a report: it
begins with what became of the message of whoever reads it, or gives that message back to its author, and nobody says
a word of their own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mailbound import tokens
from mailbound.reading import phrases

if TYPE_CHECKING:
    from mailbound.reading.mail import Mail

OPENING_LIMIT = 600
"""Within how many characters of its own words a report says what it is about, unless its headers did."""

# A return path of ours: the first of its 5 bits each hold the purpose of its token. Only programs write to one.
_PURPOSE = "abcdefghijklmnopqrstuvwxyz234567"[tokens.Purpose.RETURN_PATH << 2 :][:4]
_RETURN_PATH = re.compile(rf"\+[{_PURPOSE}][a-z2-7]{{{tokens.LENGTH - 1}}}@")


def is_by_system(mail: Mail) -> bool:
    """Tell whether its headers show that a mail system wrote it. Anybody can set a subject; this few set."""
    return (
        mail.is_delivery_report
        or "x-failed-recipients" in mail.headers
        or "x-mlserver" in mail.headers
        or "errore" in mail.headers.get("x-ricevuta")  # certified mail of Italy
        or bool(phrases.SYSTEM.search(mail.sender))
        or (mail.is_from_nobody and _is_named_as_system(mail))
        or (_is_system(_stated(mail)) and not _comes_from_people(mail))
    )


def may_report(mail: Mail) -> bool:
    """Tell whether it can be a report of a mail system at all: one wrote it, or it is laid out as one."""
    if mail.is_by_system:
        return True
    is_office = bool(phrases.DAEMON.search(mail.sender))  # or the postmaster in person
    if not is_office and _answers(mail):
        return False
    if not is_office and not mail.calls_itself_report and not mail.is_from_nobody:
        return False
    if not _is_laid_out_as_report(mail):
        return False
    if mail.is_from_nobody and not is_office and not _begins_as_report(mail):
        return False
    if mail.given_back:
        return True
    return not _converses(mail) and bool(phrases.YOURS.search(mail.small_words[:OPENING_LIMIT]))


def _stated(mail: Mail) -> str:
    return phrases.small(mail.headers.text("from"))


def _is_system(stated: str) -> bool:
    return bool(phrases.SYSTEM.match(stated))


def _is_named_as_system(mail: Mail) -> bool:
    """Tell whether its address in From is a mail system's, or none. A name before an address says nothing."""
    stated = _stated(mail)
    named = phrases.DAEMON.search(
        stated
    )  # in an address that is none, as `<postmaster\@x.example@y.example>`
    return bool(
        not mail.sender
        or stated.replace(" ", "").endswith("<>")
        or phrases.DAEMON.search(mail.sender)
        or phrases.OFFICE.search(f"<{mail.sender}>")
        or _is_system(stated)
        or (named and named[0].endswith("@"))
    )


def _comes_from_people(mail: Mail) -> bool:
    """Tell whether its reverse-path is somebody's, or lost, while its address in From is no mail system's either."""
    path = _path(mail)
    if phrases.DAEMON.search(mail.sender) or phrases.SYSTEM.search(path):
        return False
    if any(_RETURN_PATH.search(address.lower()) for address in mail.delivered_to):
        return False
    return "@" in path if path else not _is_named_as_system(mail)


def _converses(mail: Mail) -> bool:
    """Tell whether people write to each other here: on a list, in answer to somebody, from one host for another."""
    if "list-unsubscribe" in mail.headers or "list-id" in mail.headers:
        return True
    written_with = f"{mail.headers.get('x-mailer')} {mail.headers.get('user-agent')}"
    if phrases.MAIL_CLIENT.search(phrases.small(written_with)):
        return True
    path = _path(mail)
    if "@" in path and not are_kin(_host(path), _host(mail.sender)):
        return not phrases.DAEMON.search(path)
    return _answers(mail) and bool(phrases.CONVERSING.search(mail.small_words))


def _answers(mail: Mail) -> bool:
    return mail.is_discussion or "in-reply-to" in mail.headers


def _is_laid_out_as_report(mail: Mail) -> bool:
    """Tell whether it gives back a message, or speaks of one that failed before it says anything of its own."""
    is_by_people = _comes_from_people(mail)
    if any(not phrases.SYSTEM.search(author) for author in mail.returned_authors):
        # What a system wrote would be a report that somebody passes on; so would one on a message of their own.
        return not is_by_people or (_goes_to_author(mail) and _begins_as_report(mail))
    return not is_by_people and _tells_at_once(mail)


def _tells_at_once(mail: Mail) -> bool:
    found = (pattern.search(mail.small_words) for pattern in (phrases.UNDELIVERED, phrases.LATER))
    begin = min((match.start() for match in found if match), default=None)
    if begin is None or begin > OPENING_LIMIT:
        return False
    paragraph = mail.small_words[begin : begin + 200].partition("\n\n")[0]
    before = mail.small_words[:begin]
    is_quoted = before[before.rfind("\n") + 1 :].startswith(">")
    if is_quoted or phrases.PERSONAL.search(before):
        return False
    if phrases.DAEMON.search(mail.sender) and not _answers(mail):
        paragraph += mail.small_subject
        if phrases.REPORT_SUBJECT.search(mail.small_subject):
            return True
    return bool(phrases.MESSAGE.search(f"{before}{paragraph}"))


def _begins_as_report(mail: Mail) -> bool:
    """Tell whether it speaks of a message at once: people say a word of their own before they show a report."""
    begin = phrases.UNDELIVERED.search(mail.small_words)
    before = mail.small_words[: begin.start()] if begin else mail.small_words
    if phrases.PERSONAL.search(before) or phrases.CONVERSING.search(before):
        return False
    first = before.lstrip().partition("\n\n")[0]
    return not first or bool(phrases.MESSAGE.search(first))


def _goes_to_author(mail: Mail) -> bool:
    """Tell whether it is sent to whoever sent the message that it gives back, as a report is."""
    hosts = {_host(address) for address in mail.delivered_to}
    return any(are_kin(author, host) for author in mail.returned_hosts for host in hosts)


def _path(mail: Mail) -> str:
    """Return its reverse-path; "" where it is lost, or was put there on our side: it is as ours as whom it is to."""
    path = phrases.small(mail.headers.get("return-path"))
    if path.strip("<> ").startswith("@"):
        return ""  # it names nobody
    host = _host(path.strip("<> "))
    is_ours = any(are_kin(host, _host(address)) for address in mail.delivered_to)
    return "" if is_ours and not are_kin(host, _host(mail.sender)) else path


def _host(address: str) -> str:
    return address.lower().rpartition("@")[2].strip("<> ")


def are_kin(host: str, other: str) -> bool:
    """Tell whether two domains are the same, or one is below the other. A top-level domain is kin to nobody."""
    if "." not in host or "." not in other:
        return bool(host) and host == other
    return f".{host}".endswith(f".{other}") or f".{other}".endswith(f".{host}")
