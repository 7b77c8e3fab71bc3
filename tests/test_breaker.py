"""When a run halts since its refusals blame us."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from box import Box
from ledger_relay import LedgerRelay, Point
from mailbound import breaker
from mailbound.config import Breaker
from mailbound.database import tables

LIMITS = Breaker(blame_count=20, blame_share=0.05)


@pytest.mark.parametrize(
    ("blame", "settled", "why"),
    [
        pytest.param(0, 0, None, id="nothing yet"),
        pytest.param(19, 19, None, id="too few to tell"),
        pytest.param(20, 20, "20 failures blame us, while 20 deliveries were settled", id="all blame us"),
        pytest.param(20, 401, None, id="a small share blames us"),
        pytest.param(20, 400, "20 failures blame us, while 400 deliveries were settled", id="one in twenty"),
    ],
)
def test_a_run_halts_over_a_count_and_a_share(blame: int, settled: int, why: str | None) -> None:
    assert breaker.trips(blame=blame, settled=settled, limits=LIMITS) == why


def test_a_relay_that_blocks_us_halts_the_run_until_it_is_mended_and_resumed(tmp_path: Path) -> None:
    people = {f"p{number}": f"p{number}@remote.test" for number in range(12)}

    async def block() -> bytes:
        return b"550 5.7.1 your host is on our block list\r\n"

    with LedgerRelay(tmp_path / "ledger") as relay:
        settings = relay.settings
        settings["outbound"] += "\nrate = 10"
        with Box(tmp_path, more="[breaker]\nblame_count = 4\nblame_share = 0.1", **settings) as box:
            box.populate(people)
            box.schedule("spring")
            accepting = Point("server", r"250 2\.0\.0 Ok: queued")
            relay.smtp.at(accepting, block, times=1000)
            box.start()
            box.wait(lambda: _alarms(box), "it to halt, and to say so")
            assert box.run_state("spring") == "halted"
            (alarm,) = _alarms(box)
            assert alarm["level"] == "error"
            assert "failures blame us" in alarm["why"]
            box.wait(
                lambda: set(box.counts("spring")) <= {"queued", "refused"}, "what was claimed to be back"
            )
            refused = box.counts("spring")["refused"]
            assert refused < len(people), "a first refusal is none yet"
            relay.smtp.at(accepting, block, times=0)  # we are off the list
            box.cli("activity", "resume", "spring")
            box.wait(lambda: box.run_state("spring") == "sent", "the rest to be sent")
            assert box.counts("spring") == Counter(accepted=len(people) - refused, refused=refused)
            assert box.rows(sa.select(tables.recipient_status)) == []
            assert all(row.receive for row in box.rows(sa.select(tables.opt_in.c.receive)))
            assert box.stop() == 0


def _alarms(box: Box) -> list[dict[str, Any]]:
    return [event for event in box.events() if event["event"] == "run.halted"]
