"""`mailbound bounce held`, `release` and `discard`: what waits for an operator, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from mailbound.cli import held_views, terminal
from mailbound.errors import InputError

if TYPE_CHECKING:
    import sqlalchemy as sa

    from mailbound.database.engine import Database
    from mailbound.database.releasing import Settled, Which

_AT_ONCE = 500
"""How many bounces one transaction settles: a daemon that records others does not wait for long."""

Numbers = Annotated[
    list[int] | None,
    typer.Argument(metavar="[NUMBER]...", help="The numbers of bounces.", show_default=False),
]
Hold = Annotated[
    int | None, typer.Option("--hold", metavar="NUMBER", help="All of this hold, as `bounce held` shows it.")
]
OfRun = Annotated[int | None, typer.Option("--run", metavar="NUMBER", help="All of this run.")]
All = Annotated[bool, typer.Option("--all", help="All that is held.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would become of them, and change nothing.")
]


def held(context: typer.Context, json: terminal.Json = False) -> None:
    """Show what is held, and why.

    Mass bounces are held by what they have in common; others since their run halted. They change nobody until they
    are released.
    """
    from mailbound.database import releasing

    with terminal.open_database(context) as database, database.look() as connection:
        groups = releasing.groups(connection)
    if json:
        terminal.print_json(groups)
    elif groups:
        held_views.groups(groups)
    else:
        terminal.say("nothing is held")


def release(
    context: typer.Context,
    numbers: Numbers = None,
    *,
    hold: Hold = None,
    run: OfRun = None,
    everything: All = False,
    dry_run: DryRun = False,
    json: terminal.Json = False,
) -> None:
    """Believe what is held: the policy decides about it now.

    `bounce undo` takes it back. A run that halted stays so until `activity resume`.
    """
    from mailbound import config
    from mailbound.database import releasing

    limits, now = config.load(context.obj).policy, datetime.now(UTC)

    def settle(connection: sa.Connection, ids: Sequence[int]) -> list[Settled]:
        return releasing.release(connection, ids, limits=limits, who=terminal.who(), now=now)

    which = _which(numbers, hold, run, everything)
    with terminal.open_database(context) as database:
        done = _settle(database, which, settle, dry_run=dry_run)
    if json:
        terminal.print_json({"changed": not dry_run, "bounces": held_views.as_json(done)})
    else:
        held_views.released(done, dry_run=dry_run)


def discard(
    context: typer.Context,
    numbers: Numbers = None,
    *,
    hold: Hold = None,
    run: OfRun = None,
    everything: All = False,
    dry_run: DryRun = False,
    json: terminal.Json = False,
) -> None:
    """Let what is held count for nothing, now and later.

    A run that halted stays so until `activity resume`.
    """
    from mailbound.database import releasing

    now = datetime.now(UTC)

    def settle(connection: sa.Connection, ids: Sequence[int]) -> list[Settled]:
        return releasing.discard(connection, ids, who=terminal.who(), now=now)

    which = _which(numbers, hold, run, everything)
    with terminal.open_database(context) as database:
        done = _settle(database, which, settle, dry_run=dry_run)
    if json:
        terminal.print_json({"changed": not dry_run, "bounces": held_views.as_json(done)})
        return
    count = terminal.counted(len(done), "bounce")
    terminal.say(f"{count} would be discarded; nothing was changed" if dry_run else f"{count} discarded")


def _which(numbers: list[int] | None, hold: int | None, run: int | None, everything: bool) -> Which:
    from mailbound.database.releasing import Which

    if sum([bool(numbers), hold is not None, run is not None, everything]) != 1:
        raise InputError("say which: numbers of bounces, --hold, --run or --all")
    return Which(ids=numbers or (), hold=hold, run=run)


def _settle(
    database: Database,
    which: Which,
    settle: Callable[[sa.Connection, Sequence[int]], list[Settled]],
    *,
    dry_run: bool,
) -> list[Settled]:
    """Settle what is meant, some at a time; what a break leaves is still held."""
    from mailbound.database import releasing

    with database.look() as connection:
        ids = releasing.numbers(connection, which)
    done: list[Settled] = []
    with terminal.progress("settling", len(ids)) as advance:
        for start in range(0, len(ids), _AT_ONCE):
            some = ids[start : start + _AT_ONCE]
            with database.begin() as connection:
                done += settle(connection, some)
                if dry_run:
                    connection.rollback()
            advance(len(some))
    return done
