"""`mailbound activity`: plan e-mail activities, and steer those under way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailbound.cli import terminal
from mailbound.errors import InputError
from mailbound.lifecycle import RUN_OPEN, RunEvent, RunState

if TYPE_CHECKING:
    import sqlalchemy as sa

    from mailbound.config import Config
    from mailbound.database.activities import Activity
    from mailbound.database.runs import Run

app = typer.Typer(no_args_is_help=True, help="Plan e-mail activities, and steer those under way.")

Name = Annotated[str, typer.Argument(help="The activity's name or number.")]

_FOLLOW_SECONDS = 0.2


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A name for it, such as spring-sale.")],
    *,
    segment: Annotated[str, typer.Option(help="Who gets it.")],
    template: Annotated[str, typer.Option(help="The template's folder.")],
    store: Annotated[str | None, typer.Option(help="Who sends it [default: the only store].")] = None,
    at: Annotated[str | None, typer.Option(help="When: '2026-12-01 09:00', 'in 10m', 'now'.")] = None,
    cron: Annotated[str | None, typer.Option(help="Again and again, from --at on: '0 9 * * mon'.")] = None,
    zone: Annotated[str | None, typer.Option(help="The time zone of --at, --cron and --window.")] = None,
    window: Annotated[str | None, typer.Option(help="When it may send: 'mon-fri 09:00-17:00'.")] = None,
    grace: Annotated[
        str | None, typer.Option(help="How late it may start before it is missed: '1h'.")
    ] = None,
    expires_after: Annotated[str | None, typer.Option(help="How long deliveries are tried: '4d'.")] = None,
    in_doubt: Annotated[
        str | None, typer.Option(help="After no reply to a final dot: resend or hold.")
    ] = None,
) -> None:
    """Plan an activity. Without --at and --cron it waits for `activity start`."""
    from mailbound import config, schedule
    from mailbound.config import quantities
    from mailbound.database import activities
    from mailbound.template import Template

    settings = config.load(context.obj)
    if in_doubt not in {None, "resend", "hold"}:
        raise InputError(f"--in-doubt: {in_doubt} is neither resend nor hold")
    Template.load(settings.templates.folder / template)
    now = datetime.now(UTC)
    time_zone = zone or settings.sending.time_zone.key
    plan = activities.Plan(
        name=_good_name(name),
        store=_store(settings, store),
        segment=segment,
        template=template,
        time_zone=time_zone,
        grace=_duration("--grace", grace, quantities) or settings.sending.grace,
        expires_after=_duration("--expires-after", expires_after, quantities)
        or settings.sending.expires_after,
        in_doubt=in_doubt or settings.sending.in_doubt,
        starts_at=schedule.parse_when(at, schedule.zone(time_zone).key, now=now) if at else None,
        cron=schedule.parse_cron(cron) if cron else None,
        window=schedule.parse_window(window) if window else None,
    )
    with terminal.open_database(context) as database, database.begin() as connection:
        made = activities.create(connection, plan, now=now)
    when = f"starts {made.starts_at:%Y-%m-%d %H:%M:%S %Z}" if made.starts_at else "waits for `activity start`"
    terminal.say(f"activity {made.name} (number {made.id}) {f'runs at {cron} {time_zone}' if cron else when}")


@app.command("list")
def list_(context: typer.Context, *, json: terminal.Json = False) -> None:
    """List all activities, the newest first."""
    from mailbound.database import activities, runs

    rows = []
    with terminal.open_database(context) as database, database.look() as connection:
        for activity in activities.everything(connection):
            all_runs = runs.of_activity(connection, activity.id)
            latest = _latest(all_runs)
            rows.append(
                {
                    "id": activity.id,
                    "name": activity.name,
                    "store": activity.store,
                    "segment": activity.segment,
                    "template": activity.template,
                    "due": activity.cron or activity.starts_at,
                    "state": latest.state if latest else ("ended" if activity.ended_at else "waiting"),
                    "runs": len(all_runs),
                }
            )
    if json:
        terminal.print_json(rows)
    elif rows:
        terminal.table(list(rows[0]), [list(row.values()) for row in rows])
    else:
        terminal.say("there is no activity yet; `mailbound activity create` plans one")


@app.command()
def show(
    context: typer.Context,
    name: Name,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show the progress until it is over.")
    ] = False,
    json: terminal.Json = False,
) -> None:
    """Show an activity, its runs, and how far each is."""
    from mailbound.database import activities, runs, tally

    with terminal.open_database(context) as database:
        if follow:
            _follow(database, name)
        with database.look() as connection:
            activity = activities.find(connection, name)
            shown = [
                (run, tally.of_run(connection, run.id)) for run in runs.of_activity(connection, activity.id)
            ]
    if json:
        terminal.print_json(
            {"activity": activity, "runs": [{"run": run, "tally": counts} for run, counts in shown]}
        )
        return
    terminal.facts(
        [(field.replace("_", " "), getattr(activity, field)) for field in activity.__dataclass_fields__]
    )
    rows = [
        (run.id, run.occurrence_at, run.state, sum(counts.values()), _counts(counts), run.note)
        for run, counts in shown
    ]
    terminal.table(["run", "due", "state", "audience", "deliveries", "note"], rows)


@app.command()
def start(context: typer.Context, name: Name) -> None:
    """Start now: what waits, was missed or failed to start, or what has no date."""
    from mailbound import config, scheduler
    from mailbound.database import activities, runs
    from mailbound.template import Template

    settings = config.load(context.obj)
    now = datetime.now(UTC)
    with terminal.open_database(context) as database, database.begin() as connection:
        activity = activities.find(connection, name)
        run = _to_start(connection, activity, now)
        if runs.predecessor_open(connection, run):
            raise InputError(f"an earlier run of {activity.name} still sends; cancel it, or wait for its end")
        template = Template.load(settings.templates.folder / activity.template)
        scheduler.start(connection, run, activity, template.freeze(), now)
    terminal.say(f"run {run.id} of {activity.name} has started")


@app.command()
def pause(context: typer.Context, name: Name) -> None:
    """Stop sending before the next final dot; `activity resume` goes on where it stopped."""
    _steer(context, name, RunEvent.PAUSE, RunState.SENDING)


@app.command()
def resume(context: typer.Context, name: Name) -> None:
    """Go on with what is paused, or with what halted by itself once its cause is mended.

    What came back while it was halted is decided now.
    """
    from mailbound import config
    from mailbound.database import halting

    settings = config.load(context.obj)
    with terminal.open_database(context) as database, database.begin() as connection:
        run = _open_run(connection, name, RunState.PAUSED, RunState.HALTED)
        _move(connection, run, RunEvent.RESUME)
        halting.pardon(connection, run.id)
        released = halting.release(connection, run.id, limits=settings.policy)
    terminal.say(f"run {run.id} of {run.activity} sends again; {released} held bounces were applied")


@app.command()
def cancel(
    context: typer.Context,
    name: Name,
    *,
    this_run: Annotated[
        bool, typer.Option("--this-run", help="Only its earliest open run; later ones come.")
    ] = False,
) -> None:
    """Send no more of it, from before the next final dot on, and let no run come after.

    What came back while it was halted counts for nothing.
    """
    from mailbound.database import activities, halting, runs

    with terminal.open_database(context) as database, database.begin() as connection:
        activity = activities.find(connection, name)
        unfinished = {*RUN_OPEN, RunState.MISSED, RunState.FAILED}
        ended = [
            run for run in reversed(runs.of_activity(connection, activity.id)) if run.state in unfinished
        ]
        ended = ended[:1] if this_run else ended
        for run in ended:
            _move(connection, run, RunEvent.CANCEL)
            halting.discard(connection, run.id)
        if not this_run:
            activities.end(connection, activity.id, now=datetime.now(UTC))
    what = "its open run" if this_run else "the activity"
    terminal.say(
        f"{activity.name}: {what} is cancelled ({len(ended)} run{'s' if len(ended) != 1 else ''} ended)"
    )


@app.command()
def preview(
    context: typer.Context,
    name: Name,
    *,
    recipient: Annotated[str, typer.Option(help="Whose message: an external id or an address.")],
    folder: Annotated[Path, typer.Option(help="Where the files go.")] = Path(),
) -> None:
    """Write the message that a recipient would get as .eml and, with Chromium at hand, as a picture."""
    from mailbound.cli import previewing

    with terminal.open_database(context) as database:
        message = previewing.compose(context.obj, database, name, recipient)
    file = folder / f"{name}-{recipient.replace('/', '_')}.eml"
    file.write_bytes(message.content)
    terminal.say(f"wrote {file}")
    picture = file.with_suffix(".png")
    if previewing.picture(message, picture):
        terminal.say(f"wrote {picture}")


@app.command()
def test(
    context: typer.Context,
    name: Name,
    *,
    to: Annotated[str, typer.Option(help="Where the message goes.")],
    recipient: Annotated[str | None, typer.Option(help="Whose values fill it [default: the first].")] = None,
) -> None:
    """Send one message of the activity to an address of your own, through its real relay."""
    from mailbound.cli import previewing

    with terminal.open_database(context) as database:
        message = previewing.compose(context.obj, database, name, recipient, to=to)
    reply = asyncio.run(previewing.send(message))
    terminal.say(f"{message.letter.recipient}: {reply}")


def _follow(database: Any, name: str) -> None:
    """Show a progress bar until the latest run is over."""
    from mailbound.database import activities, runs, tally

    def look() -> tuple[Run | None, dict[str, int]]:
        with database.look() as connection:
            latest = _latest(runs.of_activity(connection, activities.find(connection, name).id))
            return latest, tally.of_run(connection, latest.id) if latest else {}

    run, counts = look()
    while run is not None and run.state is RunState.SCHEDULED:
        time.sleep(_FOLLOW_SECONDS)
        run, counts = look()
    with terminal.progress(name, total=None) as advance:
        shown = 0
        while run is not None and run.state is RunState.SENDING:
            done = sum(counts.values()) - counts.get(tally.OPEN, 0)
            advance(done - shown)
            shown = done
            time.sleep(_FOLLOW_SECONDS)
            run, counts = look()


def _to_start(connection: sa.Connection, activity: Activity, now: datetime) -> Run:
    """Return the run that `activity start` means: one that went wrong, else the only one, else a new one."""
    from mailbound.database import runs

    def latest(*states: RunState) -> Run | None:
        return _latest(runs.of_activity(connection, activity.id), *states)

    run = latest(RunState.MISSED, RunState.FAILED)
    if run is None and latest(RunState.SENDING, RunState.PAUSED, RunState.HALTED):
        raise InputError(f"{activity.name} is under way already; `mailbound activity show {activity.name}`")
    if run is None and activity.cron is None:  # a recurring one keeps its next date
        run = latest(RunState.SCHEDULED)
    if run is None:
        runs.schedule(connection, activity.id, now)
        run = latest(RunState.SCHEDULED)
    if run is None:
        raise InputError(f"{activity.name} has a run of this very moment already; try again")
    return run


def _steer(context: typer.Context, name: str, event: RunEvent, *states: RunState) -> None:
    with terminal.open_database(context) as database, database.begin() as connection:
        run = _open_run(connection, name, *states)
        state = _move(connection, run, event)
    terminal.say(f"run {run.id} of {run.activity} is {state}")


def _open_run(connection: sa.Connection, name: str, *states: RunState) -> Run:
    from mailbound.database import activities, runs

    activity: Activity = activities.find(connection, name)
    all_runs = runs.of_activity(connection, activity.id)
    run = _latest(all_runs, *states)
    if run is None:
        latest = _latest(all_runs)
        state = f"its latest run is {latest.state}" if latest else "it has no run yet"
        raise InputError(f"{activity.name}: {state}, so this is of no use")
    return run


def _move(connection: sa.Connection, run: Run, event: RunEvent) -> RunState:
    from mailbound.database import runs

    return runs.move(connection, run.id, event, now=datetime.now(UTC))


def _latest(all_runs: Sequence[Run], *states: RunState) -> Run | None:
    return next((run for run in all_runs if not states or run.state in states), None)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items(), key=lambda pair: -pair[1]))


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
