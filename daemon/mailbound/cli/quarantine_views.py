"""How the quarantine looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mailbound.cli import bars, bounce_views, terminal
from mailbound.cli.bars import Styled

if TYPE_CHECKING:
    from mailbound.config import Inbound
    from mailbound.database.quarantine import Room
    from mailbound.policy import Decision


def show(rows: Sequence[tuple[Any, Any | None]]) -> None:
    """Print reports, one a line, each with whom it would speak of if it were accepted."""
    told = [(row.id, row.at, row.address, bounce_views.short(row), _about(about)) for row, about in rows]
    bars.table(("id", "at", "address", "says", "about"), told, spare=("at",), long="address")


def room(found: Room, limits: Inbound) -> None:
    """Print how full the quarantine is, and what can be done."""
    from mailbound.config import quantities

    bars.line(
        f"{terminal.counted(found.reports, 'report')}, {_size(found.octets)} of mail; "
        f"{quantities.write_size(limits.quarantine_budget)} and {quantities.write_duration(limits.quarantine_for)} are "
        "kept."
    )
    bars.line(
        "`mailbound bounce explain` says why one proves nothing, `bounce accept` believes it, `bounce drop` forgets it."
    )


def accepted(decided: Sequence[tuple[int, Decision]], *, dry_run: bool) -> None:
    """Print what the policy made of reports that were accepted."""
    bars.table(
        ("id", "becomes", "why"),
        [(number, each.disposition, each.why) for number, each in decided],
        long="why",
    )
    count = terminal.counted(len(decided), "report")
    bars.line(f"{count} would be accepted; nothing was done" if dry_run else f"{count} accepted")


def as_json(rows: Sequence[tuple[Any, Any | None]], found: Room) -> dict[str, Any]:
    """Return the quarantine as plain values."""
    names = ("id", "at", "kind", "address", "action", "status", "category", "why", "mail_id", "diagnostic")
    return {
        "reports": [
            {name: getattr(row, name) for name in names} | {"about": dict(about._mapping) if about else None}  # noqa: SLF001
            for row, about in rows
        ],
        "room": found,
    }


def _about(about: Any | None) -> Any:
    if about is None:
        return Styled("nobody we mailed", "bright_black")
    name = str(about.external_id)
    return f"{name}, {about.activity}" if hasattr(about, "activity") else name


def _size(octets: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if octets >= factor:
            return f"{octets / factor:.1f} {unit}"
    return f"{octets} octets"
