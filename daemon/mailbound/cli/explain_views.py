"""How an explained mail looks: what it is, of which delivery and whom it speaks, what it would do; then the mail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mailbound.cli import bars, marked_mail, sheets
from mailbound.cli.sheets import Fact
from mailbound.lifecycle import DeliveryEvent
from mailbound.model import Action, Evidence, Fault, Kind

if TYPE_CHECKING:
    from mailbound.reading.marks import Marked

RECIPIENTS = 10
"""So many recipients of one report are told of; --json has them all."""

SIGNS = 6
"""So many lines that decided the kind are told of; the mail below shows them all."""

_WISHES = (Action.COMPLAINED, Action.UNSUBSCRIBED)  # no failure, so they have no category
_READERS = {
    "dsn": "the fields of its delivery status (RFC 3464)",
    "arf": "its feedback report (RFC 5965)",
    "mdn": "its disposition notification (RFC 8098)",
    "ses": "the JSON that a mail service wrote into it",
    "autoreply": "its header",
    "unsubscribe": "its header",
}
_FAULTS = {
    Fault.ADDRESS: "the address is at fault",
    Fault.MAILBOX: "the mailbox is at fault",
    Fault.SENDER: "we are at fault, as the receiver sees it",
    Fault.MESSAGE: "the message is at fault",
    Fault.PATH: "the way there is at fault",
    Fault.UNCLEAR: "nobody knows whose fault it is",
}
_EVENTS: dict[str, str] = {
    DeliveryEvent.REPORT_FAILED: "the delivery is bounced",
    DeliveryEvent.REPORT_DELIVERED: "the delivery is delivered",
}
_COLOURS = {"applied": "red", "held": "magenta", "quarantined": "yellow", "noted": "cyan"}


def explained(known: Mapping[str, Any], marked: Marked) -> None:
    """Print how a mail is understood, and the mail with its marks."""
    bars.line(known["subject"] or "(no subject)", "bold underline")
    sheets.facts([*_about(known)])
    _delivery(known)
    for finding in known["findings"][:RECIPIENTS]:
        sheets.title(f"About {finding['recipient'] or 'the recipient of the delivery'}")
        sheets.facts([*_points(finding, known)])
    left = len(known["findings"]) - RECIPIENTS
    if left > 0:
        sheets.note(f"… and {left:,} more recipients; --json has them all")
    if not known["findings"]:
        nobody = "It says nothing about a recipient, so it would change nothing."
        nameless = "It names no recipient of ours, so it counts as unrecognised and would change nothing."
        sheets.note("", nameless if known["kind"] == Kind.BOUNCE else nobody)
    if known["recorded"]:
        sheets.title("What became of it")
        sheets.facts([_became(row) for row in known["recorded"][:RECIPIENTS]])
    sheets.title("The mail")
    marked_mail.show(marked)


def _about(known: Mapping[str, Any]) -> Iterator[Fact]:
    mail = known["mail"]
    if mail:
        state = f", {mail['state']}: {mail['why']}" if mail["state"] == "poison" else ""
        yield Fact("mail", f"{mail['id']}, fetched {sheets.moment(mail['at'])}{state}")
    yield Fact("from", known["sender"])
    yield Fact("kind", known["kind"], "bold")
    yield Fact("why", known["why"])
    signs = known["decided_by"]
    for number, sign in enumerate(signs[:SIGNS]):
        yield Fact("shown by" if number == 0 else "", f"line {sign['line']}: {sign['text'][:120]}", "cyan")
    if len(signs) > SIGNS:
        yield Fact("", f"and {len(signs) - SIGNS} more, marked K below")
    yield Fact("read from", _reader(known["part"]))
    yield Fact("reported by", known["reporting_mta"])


def _reader(part: str) -> str:
    outer, _, inner = part.partition(":")
    if outer == "prose":
        return "its own words" if inner in {"plain", "nameless"} else f"its own words, as {inner} writes them"
    if outer == "flufl":
        return f"a hint of flufl.bounce ({inner}), which knows addresses only"
    if outer == "enclosed":
        return f"the report that it passes on: {_reader(inner)}"
    return _READERS.get(part, part)


def _delivery(known: Mapping[str, Any]) -> None:
    clues: Sequence[Mapping[str, Any]] = known["clues"]
    sheets.title("Which delivery")
    if not clues:
        sheets.note("No token of ours stands in it.")
    sheets.facts([_clue(clue) for clue in clues])
    if clues and known["unchecked"]:
        sheets.note(f"Whether they are ours cannot be told here: {known['unchecked']}")


def _clue(clue: Mapping[str, Any]) -> Fact:
    if not clue["genuine"]:
        return Fact(clue["carrier"], f"{_short(clue['token'])}  {clue['doubt']}", "yellow")
    if "recipient" in clue:
        said = f"genuine: the recipient with the number {clue['recipient']} leaves the store {clue['store']}"
    else:
        attempt = f", attempt {clue['attempt']}" if clue["attempt"] else ""
        said = f"genuine: delivery {clue['delivery']}{attempt}"
    return Fact(clue["carrier"], f"{_short(clue['token'])}  {said}", "green")


def _short(token: str) -> str:
    return f"{token[:8]}…"


def _points(finding: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[Fact]:
    is_wish = finding["action"] in _WISHES
    yield Fact("says", " ".join(filter(None, (finding["action"], finding["status"]))))
    yield Fact("diagnostic", sheets.cut(finding["diagnostic"]), "yellow")
    yield Fact("remote host", finding["remote_mta"])
    if is_wish:
        yield Fact("means", "the recipient does not want it", "bold")
        yield Fact("rule", finding["rule"])
    elif finding["action"] in {Action.FAILED, Action.DELAYED}:
        lasting = "permanent" if finding["permanent"] else "not permanent"
        yield Fact("means", f"{finding['category']}, {lasting}: {_FAULTS[finding['fault']]}", "bold")
        yield from _rule(finding)
    yield from _evidence(finding)
    yield from _would_be(finding, known)


def _rule(finding: Mapping[str, Any]) -> Iterator[Fact]:
    if finding["rule"] == "none":
        yield Fact("rule", "none fits")
        return
    says = f", for it says “{finding['rule_says']}”" if finding["rule_says"] else ""
    yield Fact("rule", f"{finding['rule']}{says}")
    if finding["rule_example"]:
        source = f" ({finding['rule_source']})" if finding["rule_source"] else ""
        yield Fact("taught by", f"“{finding['rule_example']}”{source}", "bright_black")


def _evidence(finding: Mapping[str, Any]) -> Iterator[Fact]:
    if finding["evidence"] == Evidence.SIGNED:
        about = f"delivery {finding['delivery']}" if finding["delivery"] else "this recipient"
        yield Fact("evidence", f"signed: our token names {about}", "green")
    else:
        known = "" if finding["evidence"] is None else "unsigned: "
        yield Fact("evidence", f"{known}{finding['evidence_why']}", "yellow")


def _would_be(finding: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[Fact]:
    if any(_is_of(row, finding) for row in known["recorded"]):
        return
    genuine = finding["if_genuine"]
    is_open = finding["evidence"] is None
    if genuine and is_open:
        yield from _outcome("if genuine", genuine)
    yield from _outcome("if not" if is_open else "would be", finding)
    if genuine and not is_open:
        yield from _outcome("if genuine", genuine)


def _outcome(label: str, decision: Mapping[str, Any]) -> Iterator[Fact]:
    yield Fact(label, f"{decision['would_be']}: {decision['since']}", _COLOURS.get(decision["would_be"], ""))
    effects = _effects(decision)
    yield Fact("", f"then {effects}" if effects else "then nothing changes")


def _is_of(row: Mapping[str, Any], finding: Mapping[str, Any]) -> bool:
    return row["action"] == finding["action"] and row["address"] in {finding["recipient"][:320], ""}


def _effects(decision: Mapping[str, Any]) -> str:
    """Return what would be so, as the end of a sentence."""
    until = f" until {sheets.moment(decision['until'])}" if decision["until"] else ""
    status = f"the address is {decision['status_would_be']}{until}" if decision["status_would_be"] else ""
    people = "everybody with this address" if decision["whole_address"] else "the recipient"
    wish = f"{people} is out for the store" if decision["opt_in_would_be"] else ""
    return "; ".join(filter(None, (_EVENTS.get(decision["delivery_event"] or "", ""), status, wish)))


def _became(row: Mapping[str, Any]) -> Fact:
    about = f"{row['disposition']}: {row['why']}"
    return Fact(f"bounce {row['id']}", about, _COLOURS.get(row["disposition"], ""))
