"""`mailbound bounce quarantine`, `accept` and `drop`: reports that nothing shows to be genuine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mailbound.cli import quarantine_views, terminal
from mailbound.errors import InputError

if TYPE_CHECKING:
    from mailbound.database.engine import Database

_AT_ONCE = 500
"""How many reports one transaction drops: a daemon that records others does not wait for long."""

Numbers = Annotated[list[int], typer.Argument(metavar="NUMBER...", help="The numbers of reports.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would become of them, and change nothing.")
]


def quarantine(
    context: typer.Context,
    *,
    wishes: Annotated[bool, typer.Option("--wishes", help="Only people who ask to be unsubscribed.")] = False,
    limit: Annotated[int, typer.Option(metavar="COUNT", help="How many, the latest first.", min=1)] = 50,
    json: terminal.Json = False,
) -> None:
    """List the reports that prove nothing: no token, or a wrong one.

    They change nobody. Whom a report would speak of, if it were accepted, stands beside it.
    """
    from mailbound import config
    from mailbound.database import bounces, quarantine
    from mailbound.model import Disposition, Kind

    limits = config.load(context.obj).inbound
    which = bounces.Which(dispositions=(Disposition.QUARANTINED,), kind=Kind.UNSUBSCRIBE if wishes else None)
    with terminal.open_database(context) as database, database.look() as connection:
        rows = [
            (row, quarantine.about(connection, row)) for row in bounces.recent(connection, which, limit=limit)
        ]
        room = quarantine.room(connection)
    if json:
        terminal.print_json(quarantine_views.as_json(rows, room))
    elif rows:
        quarantine_views.show(rows)
        quarantine_views.room(room, limits)
    else:
        terminal.say("nobody asks to be unsubscribed there" if wishes else "the quarantine is empty")


def accept(
    context: typer.Context, numbers: Numbers, *, dry_run: DryRun = False, json: terminal.Json = False
) -> None:
    """Take reports as genuine: the policy decides about them.

    A report is about the last message to the address it names, a wish to unsubscribe about whoever has the address.
    `bounce undo` takes it back.
    """
    from mailbound import config
    from mailbound.database import quarantine

    limits, who = config.load(context.obj).policy, terminal.who()
    with terminal.open_database(context) as database, database.begin() as connection:
        decided = [
            (number, quarantine.accept(connection, number, limits=limits, who=who))
            for number in dict.fromkeys(numbers)
        ]
        if dry_run:
            connection.rollback()
    if json:
        terminal.print_json(
            [{"id": number, "disposition": each.disposition, "why": each.why} for number, each in decided]
        )
    else:
        quarantine_views.accepted(decided, dry_run=dry_run)


def drop(
    context: typer.Context,
    numbers: Annotated[
        list[int] | None,
        typer.Argument(metavar="[NUMBER]...", help="The numbers of reports.", show_default=False),
    ] = None,
    *,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="All that is in quarantine, but wishes to unsubscribe; with --mail, all such mails."
        ),
    ] = False,
    mail: Annotated[
        bool, typer.Option("--mail", help="The numbers are of mails that were not understood, or are poison.")
    ] = False,
) -> None:
    """Let reports count for nothing, and forget their mails."""
    from mailbound.database import inbound_mail, quarantine

    if bool(numbers) == everything:
        raise InputError(f"say which: numbers of {'mails' if mail else 'reports'}, or --all")
    with terminal.open_database(context) as database:
        with database.look() as connection:
            if everything and mail:
                numbers = [row.id for row in inbound_mail.puzzling(connection)]
            elif everything:
                numbers = quarantine.numbers(connection, wishes=False)
            left = quarantine.numbers(connection, wishes=True) if everything and not mail else []
        chosen = list(dict.fromkeys(numbers or ()))
        drop_one = inbound_mail.drop if mail else quarantine.drop
        count = _drop(database, chosen, drop_one, lenient=everything)
    terminal.say(f"{terminal.counted(count, 'mail' if mail else 'report')} dropped")
    if left:
        wishes = terminal.counted(len(left), "wish to unsubscribe is", "wishes to unsubscribe are")
        terminal.say(f"{wishes} left (mailbound bounce quarantine --wishes)")


def _drop(database: Database, numbers: Sequence[int], drop_one: Callable[..., None], *, lenient: bool) -> int:
    """Drop one after the other, some at a time, and return how many; what a break leaves is still there.

    A `lenient` one passes over what was settled since we looked.
    """
    who, count = terminal.who(), 0
    with terminal.progress("dropping", len(numbers)) as advance:
        for start in range(0, len(numbers), _AT_ONCE):
            some = numbers[start : start + _AT_ONCE]
            with database.begin() as connection:
                for number in some:
                    with contextlib.suppress(*([InputError] if lenient else [])):
                        drop_one(connection, number, who=who)
                        count += 1
            advance(len(some))
    return count
