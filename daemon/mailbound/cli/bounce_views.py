"""How bounces and inbound mails look: in lists, one by one, and explained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mailbound.cli import bars, sheets, terminal
from mailbound.cli.bars import Styled
from mailbound.cli.sheets import Fact
from mailbound.model import Action, Disposition

_BOUNCE = ("id", "at", "address", "action", "status", "category", "evidence", "disposition", "why")
_MAIL = ("id", "store", "fetched_at", "state", "kind", "subject", "why")

_WISHES = (Action.COMPLAINED, Action.UNSUBSCRIBED)  # no failure, so they have no category
_STYLES: dict[str, str] = {
    Disposition.APPLIED: "red",
    Disposition.HELD: "magenta",
    Disposition.QUARANTINED: "yellow",
    Disposition.UNDONE: "bright_black",
}


def bounces(rows: Sequence[Any]) -> None:
    """Print bounces, one a line: what was said about whom, and what became of it; `bounce show` says why."""
    told = [(row.id, row.at, row.address, short(row), _became(row.disposition)) for row in rows]
    bars.table(("id", "at", "address", "says", "became"), told, spare=("at",), long="address")


def mails(rows: Sequence[Any]) -> None:
    """Print inbound mails, one a line; one that was not read has its state in place of its kind."""
    columns = ("id", "store", "fetched", "kind", "from", "subject")
    told = [
        (row.id, row.store, row.fetched_at, row.kind or row.state, _sender(row), row.subject) for row in rows
    ]
    bars.table(columns, told, spare=("fetched", "store"), long=("from", "subject"))


def mail_as_json(row: Any) -> dict[str, Any]:
    """Return an inbound mail as plain values."""
    return {name: getattr(row, name) for name in _MAIL} | {"sender": _sender(row)}


def bounce_as_json(row: Any) -> dict[str, Any]:
    """Return a bounce as plain values."""
    return {name: getattr(row, name) for name in _BOUNCE}


def _sender(row: Any) -> str:
    from mailbound.database import inbound_mail
    from mailbound.reading import mail

    return mail.sender_of(inbound_mail.head(row))


def bounce(row: Any, effects: Sequence[Any], run: str) -> None:
    """Print one bounce: what was said, how we know, what it means and what it did. `run` names its run."""
    known = (
        ("bounce", f"{row.id}, {terminal.cell(row.at)}"),
        ("address", row.address),
        ("says", _said(row.action, row.status)),
        ("diagnostic", row.diagnostic),
        ("reported by", row.reporting_mta),
        ("remote host", row.remote_mta),
        ("means", _meaning(row.category, row.permanent, row.rule, row.action)),
        ("rules", row.rule_version),
        ("evidence", row.evidence),
        ("delivery", _delivery(row.delivery_id, row.attempt, run)),
        ("mail", _mail(row)),
        ("disposition", f"{row.disposition}: {row.why}"),
    )
    sheets.facts([Fact(label, terminal.cell(value)) for label, value in known])
    if effects:
        columns = ("at", "kind", "before", "after", "cause")
        terminal.say("")
        terminal.table(columns, [[getattr(each, name) for name in columns] for each in effects])


def _said(action: str, *more: str) -> str:
    if action in _WISHES:
        return action
    return " ".join(text for text in (action, *more) if text)


def short(row: Any) -> str:
    """Return what a bounce says; that something failed goes without saying."""
    if row.action == Action.FAILED:
        return " ".join(text for text in (row.status, row.category) if text)
    return _said(row.action, row.status, row.category)


def _became(disposition: str) -> Styled:
    return Styled(disposition, _STYLES.get(disposition, ""))


def _meaning(category: str, permanent: bool, rule: str, action: str) -> str:
    if action in _WISHES:
        return f"the recipient does not want it (rule {rule})"
    return f"{category}, {'permanent' if permanent else 'not permanent'} (rule {rule})"


def _mail(row: Any) -> str:
    if row.mail_id is None:
        return "none: it was a reply of our relay"
    return f"{row.mail_id}; mailbound bounce explain {row.id} shows what was read in it"


def _delivery(number: int | None, attempt: int | None, run: str) -> str:
    return f"{number}, attempt {attempt}, {run}" if number is not None else "unknown"
