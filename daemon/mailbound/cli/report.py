"""`mailbound report`: what bounced, how an activity went, how domains take mail, one person's timeline."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from mailbound.cli import activity_views, bars, report_views, sheet, since, terminal
from mailbound.cli import timeline as timelines
from mailbound.database import activities
from mailbound.database.reports import activities as activity_reports
from mailbound.database.reports import bounces as bounce_reports
from mailbound.database.reports import domains as domain_reports
from mailbound.database.reports import sent, timeline
from mailbound.database.reports.bounces import By
from mailbound.errors import InputError

app = typer.Typer(no_args_is_help=True, help="What was sent, what bounced and why: as tables, JSON or CSV.")

Since = Annotated[
    str | None,
    typer.Option("--since", metavar="WHEN", help="From then on: 90s, 30m, 12h, 7d or a date (UTC)."),
]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV, for spreadsheets.")]
Limit = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="At most so many lines [default: 25; all with --json and --csv]."),
]

_WEEK = "7d"
_LINES = 25


@app.command("bounces")
def bounces_(
    context: typer.Context,
    *,
    since_: Since = None,
    by: Annotated[By, typer.Option("--by", help="What to group by.")] = By.REASON,
    activity: Annotated[
        str | None, typer.Option("--activity", metavar="NAME|ID", help="Of this one only.")
    ] = None,
    limit: Limit = None,
    json: terminal.Json = False,
    csv: Csv = False,
) -> None:
    """Show what bounced, and why.

    It covers the last 7 days, or an activity ever since. Refused is what our relay said no to while we spoke to it;
    reported is what a mail said later. Of sent is the share of everything that was offered to the relay.
    """
    _one_of(json, csv)
    when = since_ or (None if activity else _WEEK)
    start = since.day(when, now=datetime.now(UTC)) if when else None
    with terminal.open_database(context) as database, database.look() as connection:
        activity_id = activities.find(connection, activity).id if activity else None
        scope = sent.Scope(start, activity_id)
        shown = limit or (None if json or csv else _LINES)
        found = bounce_reports.report(connection, scope, by, limit=shown)
    if json:
        terminal.print_json({"since": start, "activity": activity, **report_views.bounces_as_json(found)})
    elif csv:
        sheet.write(*report_views.bounces_as_sheet(found))
    else:
        of = f" of {activity}" if activity else ""
        report_views.bounces(found, title=f"Bounces{of} by {by}, {_period(start)}")


@app.command("activity")
def activity_(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME|ID", help="The activity.", show_default=False)],
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="So many of its latest runs [default: 3].")
    ] = None,
    json: terminal.Json = False,
    csv: Csv = False,
) -> None:
    """Show how each run of an activity went.

    Its audience is the sum of the states. A recipient who unsubscribed is counted for the last run that they got.
    """
    _one_of(json, csv)
    now = datetime.now(UTC)
    shown = limit or (None if json or csv else 3)
    with terminal.open_database(context) as database, database.look() as connection:
        found = activity_reports.report(connection, name, limit=shown)
    if json:
        terminal.print_json(activity_views.as_json(found, now))
    elif csv:
        sheet.write(*activity_views.as_sheet(found))
    else:
        activity_views.show(found, now)


@app.command("domains")
def domains_(
    context: typer.Context,
    *,
    since_: Since = _WEEK,
    limit: Limit = None,
    json: terminal.Json = False,
    csv: Csv = False,
) -> None:
    """Show how each recipient domain takes our mail.

    The busiest comes first. Accepted is by our relay, and may have bounced later. It is counted by day (UTC).
    """
    _one_of(json, csv)
    start = sent.midnight(since.moment(since_ or _WEEK, now=datetime.now(UTC)))
    with terminal.open_database(context) as database, database.look() as connection:
        found = domain_reports.report(connection, start, limit=limit or (None if json or csv else _LINES))
    if json:
        terminal.print_json({"since": start, **report_views.domains_as_json(found)})
    elif csv:
        sheet.write(*report_views.domains_as_sheet(found))
    else:
        report_views.domains(found, title=f"Recipient domains, {_period(start)}")


@app.command("recipient")
def recipient_(
    context: typer.Context,
    who: Annotated[
        str, typer.Argument(metavar="ADDRESS|EXTERNAL_ID", help="The person.", show_default=False)
    ],
    json: terminal.Json = False,
    csv: Csv = False,
) -> None:
    """Show the whole timeline of one person.

    Where several share the address, each has a timeline. Times are UTC.
    """
    _one_of(json, csv)
    with terminal.open_database(context) as database, database.look() as connection:
        found = timeline.report(connection, who)
    if json:
        terminal.print_json(found)
    elif csv:
        sheet.write(*timelines.as_sheet(found))
    else:
        for number, one in enumerate(found):
            if number:
                bars.line("")
            timelines.show(one)


def _one_of(*formats: Any) -> None:
    if sum(map(bool, formats)) > 1:
        raise InputError("choose one of --json and --csv")


def _period(start: datetime | None) -> str:
    if start is None:
        return "ever since"
    midnight = start == sent.midnight(start)
    return f"since {start:%Y-%m-%d}" if midnight else f"since {terminal.cell(start)}"
