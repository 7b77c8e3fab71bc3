"""The timeline of one person, one line for each thing that happened, in the words of an operator."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mailbound.cli import bars, terminal
from mailbound.database.reports.timeline import Entry, Timeline

Fields = Mapping[str, Any]

_STYLES = {
    "imported": "bright_black",
    "marked": "bright_black",
    "accepted": "green",
    "delivered": "bright_green",
    "success": "bright_green",
    "bounce": "red",
    "refused": "red",
    "expired": "yellow",
    "unknown": "magenta",
    "failed": "magenta",
    "delay": "yellow",
    "complaint": "bold red",
    "unsubscribe": "magenta",
    "opt-in": "blue",
    "status": "yellow",
}


def show(timeline: Timeline) -> None:
    """Print who the person is, and what happened to them."""
    name = f" ({timeline.name})" if timeline.name else ""
    bars.line(f"{timeline.address}{name}, external id {timeline.external_id}", "bold")
    until = f" until {terminal.cell(timeline.status_until)}" if timeline.status_until else ""
    wishes = ", ".join(f"{store} {'in' if receive else 'out'}" for store, receive in timeline.opt_ins.items())
    bars.line(f"{timeline.status}{until} · opt-in: {wishes or 'never'}")
    if sys.stdout.isatty():
        _draw(timeline.entries)
        return
    for entry in timeline.entries:
        said = f"  — {quote(entry)}" if quote(entry) else ""
        terminal.say(f"{terminal.cell(entry.at)}  {word(entry):<11}  {text(entry)}{said}")


def _draw(entries: Sequence[Entry]) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for entry in entries:
        when = Text(terminal.cell(entry.at), "bright_black")
        what = Text(terminal.escape(word(entry)), _STYLES.get(word(entry), ""))
        grid.add_row(when, what, Text(terminal.escape(text(entry))))
        if quote(entry):
            grid.add_row("", "", Text(terminal.escape(quote(entry)), "bright_black"))
    bars.console().print(grid)


def word(entry: Entry) -> str:
    """Return what happened in one word."""
    return entry.kind.replace("_", "-") if entry.what == "changed" else entry.what


def text(entry: Entry) -> str:
    """Return what happened in one sentence."""
    return _TEXTS.get(entry.kind, _change)(entry.fields)


def _recipient(fields: Fields) -> str:
    return f"as {fields['external_id']}"


def _delivery(fields: Fields) -> str:
    parts = [f"{fields['activity']}, run {fields['run_id']}"]
    if "attempt" in fields:
        parts.append(f"attempt {fields['attempt']} to {fields['address']}")
    if "reason" in fields:
        parts.append(fields["reason"])
    if "reply" in fields:
        parts.append(fields["reply"])
    if "next_attempt_at" in fields:
        parts.append(f"again at {terminal.cell(fields['next_attempt_at'])}")
    return ": ".join([parts[0], ", ".join(parts[1:])]) if parts[1:] else parts[0]


def _bounce(fields: Fields) -> str:
    verdict = " ".join(str(fields[name]) for name in ("status", "category") if name in fields)
    if fields.get("action") == "failed":
        verdict += ", permanent" if fields.get("permanent") else ", transient"
    how = f"{fields['evidence']}, rule {fields['rule']}" if fields.get("rule") else fields["evidence"]
    why = f": {fields['why']}" if fields.get("why") else ""
    told = f"{verdict} ({how}) → {fields['disposition']}{why}".lstrip(", ")
    return f"{_subject(fields)}{told} [bounce {fields['bounce_id']}]"


def quote(entry: Entry) -> str:
    """Return what a server said, word for word, and which; "" if nothing is known."""
    if entry.kind != "bounce" or not entry.fields.get("diagnostic"):
        return ""
    server = entry.fields.get("remote_mta") or entry.fields.get("reporting_mta")
    return f"{server + ': ' if server else ''}{entry.fields['diagnostic']}"


def _subject(fields: Fields) -> str:
    return f"{fields['activity']}, run {fields['run_id']}: " if fields.get("activity") else ""


def _change(fields: Fields) -> str:
    what = " · ".join(part for part in (fields.get("store", ""), fields.get("address", "")) if part)
    step = f"{fields.get('before') or 'nothing'} → {fields.get('after') or 'nothing'}"
    cause = fields.get("cause", "")
    if fields.get("bounce_id"):
        cause = f"{cause} {fields['bounce_id']}"
    if fields.get("who"):
        cause = f"{cause} by {fields['who']}"
    if fields.get("undoes"):
        cause = f"{cause}, undoes change {fields['undoes']}"
    return f"{what + ': ' if what else ''}{step} ({cause})"


_TEXTS: Mapping[str, Callable[[Fields], str]] = {
    "recipient": _recipient,
    "delivery": _delivery,
    "bounce": _bounce,
}


def as_sheet(timelines: Sequence[Timeline]) -> tuple[Sequence[str], list[list[Any]]]:
    """Return one row for each thing that happened."""
    columns = ["external_id", "at", "kind", "what", "text", "quote"]
    return columns, [
        [one.external_id, entry.at, entry.kind, entry.what, text(entry), quote(entry)]
        for one in timelines
        for entry in one.entries
    ]
