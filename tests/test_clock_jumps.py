"""The clock of the host jumps while the real daemon sends: nothing is sent twice, and nothing waits for what is over.

libfaketime gives the daemon the time of the day that stands in a file; the clock that only counts is left alone, as
it is where an administrator sets the time.
"""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from box import Box
from ledger_relay import LedgerRelay
from mailbound.database import tables, tally
from servers import need

_DAY = timedelta(days=1)
_PEOPLE = {
    f"person-{number}": f"person-{number}@remote.test" for number in range(100)
}  # more than are claimed ahead
_RATE = 40
_LIBRARIES = [
    *Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"),
    Path("/usr/lib/faketime/libfaketimeMT.so.1"),
]


class FakeTime:
    """The time of the day of a daemon: ours, and so many seconds."""

    def __init__(self, box: Box) -> None:
        need("faketime")
        self._file = box.folder / "faketime"
        self.jump(timedelta())
        box.environment |= {
            "LD_PRELOAD": str(next(path for path in _LIBRARIES if path.exists())),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",  # a second, in which it does not look at the file again
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }

    def jump(self, offset: timedelta) -> None:
        """Let the time be so far from ours from now on."""
        coming = self._file.with_suffix(".next")
        coming.write_text(f"{offset.total_seconds():+.0f}s\n")
        coming.replace(self._file)


@pytest.mark.parametrize(
    ("jumps", "daily"),
    [
        pytest.param([_DAY], ["missed", "scheduled"], id="a day forth"),
        pytest.param([-_DAY / 24], ["scheduled"], id="an hour back"),
        pytest.param([_DAY, 0 * _DAY], ["missed", "scheduled"], id="a day forth and back again"),
    ],
)
def test_a_clock_that_jumps_while_it_sends_costs_nobody_and_repeats_nothing(
    tmp_path: Path, jumps: list[timedelta], daily: list[str]
) -> None:
    with LedgerRelay(tmp_path / "ledger") as relay:
        settings = relay.settings
        settings["outbound"] += f"\nrate = {_RATE}"
        with Box(tmp_path, **settings) as box:
            time = FakeTime(box)
            box.populate(_PEOPLE)
            box.schedule("spring")
            hour = datetime.now(UTC).hour
            box.schedule("daily", starts_at=None, cron=f"30 {(hour + 12) % 24} * * *")
            box.start()
            for number, offset in enumerate(jumps, 1):
                box.wait(lambda count=30 * number - 20: len(relay.ledger()) >= count, "some letters")
                time.jump(offset)
                box.wait(lambda count=number: len(_told(box)) >= count, "the jump to be told of")
            box.wait(lambda: box.run_state("spring") == "sent", "the run to be sent")
            times = Counter(address for _, address in relay.ledger())
            assert times == dict.fromkeys(_PEOPLE.values(), 1)
            assert box.counts("spring") == {"accepted": len(_PEOPLE)}
            attempts = sa.select(tables.delivery.c.attempt).distinct()
            assert [row.attempt for row in box.rows(attempts)] == [1]
            with box.database.look() as connection:
                assert tally.differences(connection) == []
            assert box.stop() == 0
            assert _states(box, "daily") == daily, "what was missed waits for an operator, once"
            assert _told(box) == _steps(jumps)
            assert not [event for event in box.events() if event["event"] in {"loop.stuck", "relay.failed"}]


def _told(box: Box) -> list[float]:
    """Return by how many seconds the log says that the clock was set each time."""
    return [round(event["seconds"], -2) for event in box.events() if event["event"] == "clock.jumped"]


def _states(box: Box, activity: str) -> list[str]:
    """Return the states of an activity's runs, the earliest first."""
    query = (
        sa.select(tables.run.c.state)
        .join(tables.activity, tables.activity.c.id == tables.run.c.activity_id)
        .where(tables.activity.c.name == activity)
        .order_by(tables.run.c.occurrence_at)
    )
    return [row.state for row in box.rows(query)]


def _steps(jumps: list[timedelta]) -> list[float]:
    """Return by how many seconds the clock was set each time."""
    return [(after - before).total_seconds() for before, after in itertools.pairwise([timedelta(), *jumps])]
