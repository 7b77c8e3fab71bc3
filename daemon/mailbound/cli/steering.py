"""`mailbound activity start`, `pause`, `resume` and `cancel`: steer what is under way."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from mailbound.cli import terminal
from mailbound.errors import InputError
from mailbound.lifecycle import RUN_OPEN, RunEvent, RunState

if TYPE_CHECKING:
    import sqlalchemy as sa

    from mailbound.database.activities import Activity
    from mailbound.database.runs import Run

Name = Annotated[str, typer.Argument(metavar="NAME", help="The activity's name or number.")]


def start(context: typer.Context, name: Name) -> None:
    """Start an activity now.

    That is the run that was missed or failed to start, else the one that waits, else a new one. An activity
    with --cron keeps its next date.
    """
    from mailbound import config, scheduler
    from mailbound.database import activities, runs
    from mailbound.template import Template

    settings = config.load(context.obj)
    now = datetime.now(UTC)
    with terminal.open_database(context) as database, database.begin() as connection:
        activity = activities.find(connection, name)
        if activity.ended_at is not None:
            raise InputError(f"{activity.name} was cancelled for good; plan another activity")
        run = _to_start(connection, activity, now)
        if runs.predecessor_open(connection, run):
            raise InputError(f"an earlier run of {activity.name} still sends; cancel it, or wait for its end")
        template = Template.load(settings.templates.folder / activity.template)
        scheduler.start(connection, run, activity, template.freeze(), now)
    terminal.say(f"run {run.id} of {activity.name} has started")


def pause(context: typer.Context, name: Name) -> None:
    """Stop sending, before the next final dot. `activity resume` goes on where it stopped."""
    with terminal.open_database(context) as database, database.begin() as connection:
        paused = _open_runs(connection, name, RunState.SENDING)
        for run in paused:
            _move(connection, run, RunEvent.PAUSE)
    for run in paused:
        terminal.say(f"run {run.id} of {run.activity} is {RunState.PAUSED}")


def resume(context: typer.Context, name: Name) -> None:
    """Go on with what is paused or halted.

    What came back while it was halted is decided now, so mend first what halted it. Mass bounces stay held.
    """
    from mailbound import config
    from mailbound.database import halting, releasing

    settings = config.load(context.obj)
    told = []
    with terminal.open_database(context) as database, database.begin() as connection:
        for run in _open_runs(connection, name, RunState.PAUSED, RunState.HALTED):
            _move(connection, run, RunEvent.RESUME)
            halting.pardon(connection, run.id)
            released = halting.release(connection, run.id, limits=settings.policy)
            left = releasing.count(connection, releasing.Which(run=run.id))
            held = f"; {terminal.counted(released, 'held bounce')} applied" if released else ""
            told.append(f"run {run.id} of {run.activity} sends again{held}")
            if left:
                told.append(
                    f"{terminal.counted(left, 'bounce')} of it held still; see `mailbound bounce held`"
                )
    for line in told:
        terminal.say(line)


def cancel(
    context: typer.Context,
    name: Name,
    *,
    this_run: Annotated[
        bool, typer.Option("--this-run", help="Only its earliest open run; later ones come.")
    ] = False,
) -> None:
    """Send no more of it, and let no run come after.

    Sending ends before the next final dot. What came back while it was halted counts for nothing.
    """
    from mailbound.database import activities, halting, runs

    with terminal.open_database(context) as database, database.begin() as connection:
        activity = activities.find(connection, name)
        unfinished = {*RUN_OPEN, RunState.MISSED, RunState.FAILED}
        ended = [
            run for run in reversed(runs.of_activity(connection, activity.id)) if run.state in unfinished
        ]
        if this_run and not ended:
            raise InputError(f"{activity.name} has no open run; `mailbound activity show {activity.name}`")
        ended = ended[:1] if this_run else ended
        for run in ended:
            _move(connection, run, RunEvent.CANCEL)
            halting.discard(connection, run.id)
        if not this_run:
            activities.end(connection, activity.id, now=datetime.now(UTC))
    if this_run:
        terminal.say(f"run {ended[0].id} of {activity.name} is cancelled")
    else:
        terminal.say(f"{activity.name} is cancelled, and {terminal.counted(len(ended), 'run')} of it ended")


def _to_start(connection: sa.Connection, activity: Activity, now: datetime) -> Run:
    """Return the run that `activity start` means: one that went wrong, else the only one, else a new one."""
    from mailbound.database import runs

    def latest(*states: RunState) -> Run | None:
        return _latest(runs.of_activity(connection, activity.id), *states)

    run = latest(RunState.MISSED, RunState.FAILED)
    under_way = latest(RunState.SENDING, RunState.PAUSED, RunState.HALTED)
    if run is None and under_way and not under_way.reopened:
        raise InputError(f"{activity.name} is under way already; `mailbound activity show {activity.name}`")
    if run is None and activity.cron is None:  # a recurring one keeps its next date
        run = latest(RunState.SCHEDULED)
    if run is None:
        runs.schedule(connection, activity.id, now)
        run = latest(RunState.SCHEDULED)
    if run is None:
        raise InputError(f"{activity.name} has a run of this very moment already; try again")
    return run


def _open_runs(connection: sa.Connection, name: str, *states: RunState) -> Sequence[Run]:
    """Return the runs of an activity in one of `states`. Raises InputError if there is none."""
    from mailbound.database import activities, runs

    activity: Activity = activities.find(connection, name)
    all_runs = runs.of_activity(connection, activity.id)
    found = [run for run in all_runs if run.state in states]
    if not found:
        told = telling(all_runs)
        state = f"its run {told.id} is {told.state}" if told else "it has no run yet"
        raise InputError(f"{activity.name}: {state}, so there is nothing to do")
    return found


def _move(connection: sa.Connection, run: Run, event: RunEvent) -> RunState:
    from mailbound.database import runs

    return runs.move(connection, run.id, event, now=datetime.now(UTC))


def _latest(all_runs: Sequence[Run], *states: RunState) -> Run | None:
    return next((run for run in all_runs if not states or run.state in states), None)


def telling(all_runs: Sequence[Run]) -> Run | None:
    """Return the run that says most about an activity: one under way, else the next one due, else the last."""
    waiting = [run for run in all_runs if run.state is RunState.SCHEDULED]
    under_way = _latest(all_runs, RunState.HALTED, RunState.PAUSED, RunState.SENDING)
    return under_way or (waiting[-1] if waiting else _latest(all_runs))
