"""`mailbound activity`: plan e-mail activities, look at them, and try their messages."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailbound.cli import bars, doubting, steering, terminal
from mailbound.cli.bars import Styled
from mailbound.errors import InputError
from mailbound.lifecycle import RunState

if TYPE_CHECKING:
    from mailbound.config import Config
    from mailbound.database.activities import Plan

_STYLES = {
    RunState.SENT: "green",
    RunState.SENDING: "blue",
    RunState.HALTED: "red",
    RunState.FAILED: "red",
    RunState.MISSED: "red",
    RunState.CANCELLED: "bright_black",
    "ended": "bright_black",
}

app = typer.Typer(no_args_is_help=True, help="Plan e-mail activities, and steer those under way.")


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name for it, such as spring-sale.")],
    *,
    segment: Annotated[str, typer.Option(metavar="NAME", help="Who gets it.")],
    template: Annotated[str, typer.Option(metavar="NAME", help="The template's folder.")],
    store: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who sends it [default: the only store].")
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="When: '2026-12-01 09:00', 'in 10m', 'now'.")
    ] = None,
    cron: Annotated[
        str | None, typer.Option(metavar="CRON", help="Again and again, from --at on: '0 9 * * mon'.")
    ] = None,
    zone: Annotated[
        str | None,
        typer.Option(
            metavar="ZONE",
            help="The time zone of --at, --cron and --window [default: sending.time_zone].",
        ),
    ] = None,
    window: Annotated[
        str | None, typer.Option(metavar="HOURS", help="When it may send: 'mon-fri 09:00-17:00'.")
    ] = None,
    recipient_time: Annotated[
        bool,
        typer.Option("--recipient-time", help="The hours of --window are by each recipient's own clock."),
    ] = False,
    grace: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="How late it may start before it is missed, such as 1h [default: sending.grace].",
        ),
    ] = None,
    expires_after: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="How long deliveries are tried, such as 4d [default: sending.expires_after].",
        ),
    ] = None,
    in_doubt: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT", help="After no reply to a final dot: resend or hold [default: sending.in_doubt]."
        ),
    ] = None,
    resend_soft: Annotated[
        int | None,
        typer.Option(
            metavar="COUNT",
            help="How often what came back softly is sent again [default: sending.resend_soft].",
            min=0,
            max=100,
        ),
    ] = None,
    resend_every: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="How long after each time, such as 1d [default: sending.resend_every]."
        ),
    ] = None,
) -> None:
    """Plan an activity. Without --at and --cron it waits for `activity start`."""
    from mailbound import config
    from mailbound.cli import plan_views
    from mailbound.config import quantities
    from mailbound.database import activities
    from mailbound.template import Template

    settings = config.load(context.obj)
    sending = settings.sending
    if in_doubt not in {None, "resend", "hold"}:
        raise InputError(f"--in-doubt: {in_doubt} is neither resend nor hold")
    Template.load(settings.templates.folder / template)
    now = datetime.now(UTC)
    plan = activities.Plan(
        name=_good_name(name),
        store=_store(settings, store),
        segment=segment,
        template=template,
        grace=_duration("--grace", grace, quantities) or sending.grace,
        expires_after=_duration("--expires-after", expires_after, quantities) or sending.expires_after,
        in_doubt=in_doubt or sending.in_doubt,
        resend_soft=sending.resend_soft if resend_soft is None else resend_soft,
        resend_every=_duration("--resend-every", resend_every, quantities) or sending.resend_every,
        **_times(zone or sending.time_zone.key, at, cron, window, now, by_recipient=recipient_time),
    )
    _refuse_the_past(plan, now)
    with terminal.open_database(context) as database, database.begin() as connection:
        made = activities.create(connection, plan, now=now)
    due = f"is due {plan_views.due(made)}" if plan_views.due(made) else "waits for `activity start`"
    terminal.say(f"activity {made.name} (number {made.id}) {due}")


def _times(
    zone: str, at: str | None, cron: str | None, window: str | None, now: datetime, *, by_recipient: bool
) -> dict[str, Any]:
    from mailbound import schedule

    if by_recipient and window is None:
        raise InputError("--recipient-time: say which hours, with --window")
    return {
        "time_zone": schedule.zone(zone).key,
        "starts_at": schedule.parse_when(at, zone, now=now) if at is not None else None,
        "cron": schedule.parse_cron(cron) if cron is not None else None,
        "window": schedule.parse_window(window, by_recipient=by_recipient) if window is not None else None,
    }


def _refuse_the_past(plan: Plan, now: datetime) -> None:
    """Raise InputError for the only time of an activity if it is over: its run would be missed at once."""
    from mailbound import schedule
    from mailbound.config import quantities

    if plan.starts_at is None or plan.cron is not None:
        return
    window = schedule.Hours(plan.window, plan.time_zone).of_run
    step = schedule.decide(plan.starts_at, now=now, grace=plan.grace, window=window)
    if isinstance(step, schedule.Missed):
        raise InputError(
            f"--at: {terminal.cell(plan.starts_at)} is over for longer than the grace of "
            f"{quantities.write_duration(plan.grace)}; say --at now, or leave it out and start it by hand"
        )


@app.command("list")
def list_(context: typer.Context, *, json: terminal.Json = False) -> None:
    """List all activities, the newest first."""
    from mailbound.cli import plan_views
    from mailbound.database import activities, runs

    rows: list[dict[str, Any]] = []
    with terminal.open_database(context) as database, database.look() as connection:
        for activity in activities.everything(connection):
            all_runs = runs.of_activity(connection, activity.id)
            told = steering.telling(all_runs)
            rows.append(
                {
                    "id": activity.id,
                    "name": activity.name,
                    "store": activity.store,
                    "segment": activity.segment,
                    "template": activity.template,
                    "due": plan_views.due(activity),
                    "state": told.state if told else ("ended" if activity.ended_at else "waiting"),
                    "runs": len(all_runs),
                }
            )
    if json:
        terminal.print_json(rows)
    elif rows:
        bars.table(list(rows[0]), [list({**row, "state": _state(row["state"])}.values()) for row in rows])
    else:
        terminal.say("there is no activity yet; `mailbound activity create` plans one")


@app.command()
def show(
    context: typer.Context,
    name: steering.Name,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show the progress until it is over.")
    ] = False,
    json: terminal.Json = False,
) -> None:
    """Show an activity, its runs, and how far each is."""
    from mailbound.cli import following, plan_views
    from mailbound.database import activities, progress, runs, tally

    now = datetime.now(UTC)
    with terminal.open_database(context) as database:
        if follow:
            following.follow(database, name)
        with database.look() as connection:
            activity = activities.find(connection, name)
            shown = [
                (run, tally.of_run(connection, run.id)) for run in runs.of_activity(connection, activity.id)
            ]
            held = {run.id: progress.held_back(connection, run, activity, now=now) for run, _ in shown}
    if json:
        run_facts = [
            {"run": run, "tally": counts, "held_back": held[run.id] or None} for run, counts in shown
        ]
        terminal.print_json({"activity": plan_views.as_json(activity), "runs": run_facts})
        return
    plan_views.show(activity)
    if shown:
        terminal.say("")
        rows = [
            (
                run.id,
                run.occurrence_at,
                _state(run.state),
                terminal.number(sum(counts.values())),
                _counts(counts),
            )
            for run, counts in shown
        ]
        bars.table(["run", "due", "state", "audience", "deliveries"], rows)
    for run, _ in shown:
        if held[run.id]:
            terminal.say(f"run {run.id} is held back by: {held[run.id]}")
        elif run.note:
            terminal.say(f"run {run.id}: {run.note}")


def _state(state: str) -> Styled:
    """Return a state in its colour: red wants an operator."""
    return Styled(state, _STYLES.get(state, "yellow"))


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items(), key=lambda pair: -pair[1]))


for _steer in (steering.start, steering.pause, steering.resume, steering.cancel):
    app.command()(_steer)
app.command("in-doubt")(doubting.in_doubt)
app.command("settle")(doubting.settle)


@app.command()
def preview(
    context: typer.Context,
    name: steering.Name,
    *,
    recipient: Annotated[
        str | None,
        typer.Option(
            metavar="WHO", help="Whose message: an external id or an address [default: the segment's first]."
        ),
    ] = None,
    folder: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the files go.")] = Path(),
) -> None:
    """Write the message that a recipient would get.

    That is a .eml file and, if Chromium is installed and the message has HTML, a picture beside it.
    """
    from mailbound.cli import previewing

    with terminal.open_database(context) as database:
        message = previewing.compose(context.obj, database, name, recipient)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}-{recipient or message.letter.recipient}.eml".replace("/", "_")
    file.write_bytes(message.content)
    terminal.say(f"wrote {file}")
    picture = file.with_suffix(".png")
    if previewing.picture(message, picture):
        terminal.say(f"wrote {picture}")
    else:
        terminal.say("no picture: it needs Chromium, and a message with HTML")


@app.command()
def test(
    context: typer.Context,
    name: steering.Name,
    *,
    to: Annotated[str, typer.Option(metavar="ADDRESS", help="Where the message goes.")],
    recipient: Annotated[
        str | None,
        typer.Option(
            metavar="WHO",
            help="Whose values fill it: an external id or an address [default: the segment's first].",
        ),
    ] = None,
) -> None:
    """Send one message to an address of your own.

    It goes through the store's real relay. Whatever comes back of it changes nobody.
    """
    from mailbound.cli import previewing

    with terminal.open_database(context) as database:
        message = previewing.compose(context.obj, database, name, recipient, to=to)
    reply = asyncio.run(previewing.send(message))
    terminal.say(f"{message.letter.recipient}: {reply}")


def _good_name(name: str) -> str:
    if not name or len(name) > 64 or name.isdecimal() or not name.isprintable():
        raise InputError(f"{name!r} is no good name: 1 to 64 printable characters, not only digits")
    return name


def _store(settings: Config, name: str | None) -> str:
    if name is None and len(settings.stores) == 1:
        return next(iter(settings.stores))
    if name not in settings.stores:
        raise InputError(f"--store: choose one of {', '.join(sorted(settings.stores))}")
    return name


def _duration(option: str, text: str | None, quantities: Any) -> timedelta | None:
    if text is None:
        return None
    try:
        return timedelta(seconds=quantities.positive_duration(text).total_seconds())
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None
