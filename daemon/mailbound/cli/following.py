"""What `activity show --follow` shows while a run sends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mailbound.cli import steering, terminal
from mailbound.lifecycle import RunState

if TYPE_CHECKING:
    from mailbound.database.engine import Database
    from mailbound.database.runs import Run

_SECONDS = 0.2  # from look to look


def follow(database: Database, name: str) -> None:
    """Show a progress bar on a terminal, and return when the run is over, or waits for an operator."""
    from mailbound.database import tally

    run, counts = _look(database, name)
    if run is not None and run.state is RunState.SCHEDULED:
        with terminal.waiting(f"{name} is due {terminal.cell(run.occurrence_at)}"):
            while run is not None and run.state is RunState.SCHEDULED:
                time.sleep(_SECONDS)
                run, counts = _look(database, name)
    if run is None or run.state is not RunState.SENDING:
        return
    with terminal.progress(name, total=None) as advance:
        shown = 0
        while run is not None and run.state is RunState.SENDING:
            audience = sum(counts.values())  # it grows until the whole audience is frozen
            done = audience - counts.get(tally.OPEN, 0)
            advance(done - shown, total=audience or None)
            shown = done
            time.sleep(_SECONDS)
            run, counts = _look(database, name)


def _look(database: Database, name: str) -> tuple[Run | None, dict[str, int]]:
    """Return the run that there is most to say about, and how many deliveries of it stand where."""
    from mailbound.database import activities, runs, tally

    with database.look() as connection:
        activity = activities.find(connection, name)
        run = steering.telling(runs.of_activity(connection, activity.id))
        return run, tally.of_run(connection, run.id) if run else {}
