"""How looks what is held, and what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mailbound.cli import bars, sheets, terminal
from mailbound.cli.sheets import Fact
from mailbound.model import Disposition

if TYPE_CHECKING:
    from mailbound.database.releasing import Group, Settled

_MANY = 10
"""So many bounces are shown one by one."""


def groups(found: Sequence[Group]) -> None:
    """Print what is held, group by group, and what to do about it."""
    from mailbound.guard import By

    for number, group in enumerate(found):
        if number:
            bars.line("")
        bars.line(_title(group), "bold magenta")
        whose = f" of {terminal.counted(group.people, 'recipient')}" if group.people != group.bounces else ""
        sheets.facts(
            [
                Fact("why", group.why),
                Fact("text", group.subject if group.trait == By.TEXT else ""),
                Fact("run", _run(group)),
                Fact("held", f"{terminal.counted(group.bounces, 'bounce')}{whose}"),
                Fact("came", _span(group)),
                Fact("look", _look(group)),
            ]
        )
    bars.line("")
    total = sum(group.bounces for group in found)
    bars.line(
        f"{terminal.counted(total, 'bounce')} held: `mailbound bounce release` believes them, `mailbound bounce "
        "discard` does not; --dry-run shows what would become of them."
    )


def _title(group: Group) -> str:
    if group.hold is None:
        return f"since run {group.run} halted"
    return f"hold {group.hold}: one {group.trait}"


def _run(group: Group) -> str:
    return f"{group.run} of {group.activity}" if group.run is not None else "several"


def _span(group: Group) -> str:
    since, until = (terminal.cell(moment) for moment in (group.since, group.until))
    return since if since == until else f"{since} to {until}"


def _look(group: Group) -> str:
    option = f"--hold {group.hold}" if group.hold is not None else f"--run {group.run}"
    return f"mailbound bounce list --held {option}"


def released(done: Sequence[Settled], *, dry_run: bool) -> None:
    """Print what was decided about bounces that were held: a few one by one, many by what was decided."""
    if len(done) <= _MANY:
        told = [(each.id, each.address, _became(each), _why(each)) for each in done]
        bars.table(("id", "address", "becomes", "why"), told, long="address")
    else:
        counts = Counter((_became(each), _why(each)) for each in done)
        sums = [(count, became, why) for (became, why), count in counts.most_common()]
        bars.table(("bounces", "become", "why"), sums, long="why")
    applied = sum(_became(each) == Disposition.APPLIED for each in done)
    count, changed = terminal.counted(len(done), "bounce"), terminal.counted(applied, "recipient")
    if dry_run:
        bars.line(f"{count} would be released, and {changed} changed; nothing was done")
    else:
        bars.line(f"{count} released, and {changed} changed")


def _became(each: Settled) -> str:
    return str(each.decision.disposition) if each.decision else str(Disposition.UNDONE)


def _why(each: Settled) -> str:
    return each.decision.why if each.decision else "discarded"


def as_json(done: Sequence[Settled]) -> list[dict[str, Any]]:
    """Return settled bounces as plain values."""
    return [
        {"id": each.id, "address": each.address, "disposition": _became(each), "why": _why(each)}
        for each in done
    ]
