"""Rates, as the relay sees them: never faster than the operator allows, and no domain in another's way."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from box import Box
from ledger_relay import LedgerRelay
from mailbound.database import tables

_RATE = 20.0
_CLOCK = 0.3  # a mark comes some time after its token, the first one longest: it has to connect


def _marks(box: Box) -> list[tuple[str, datetime]]:
    """Return the domain and the moment of each mark, the earliest first."""
    rows = box.rows(
        sa.select(tables.domain.c.name, tables.delivery.c.marked_at)
        .join(tables.delivery, tables.delivery.c.domain_id == tables.domain.c.id)
        .order_by(tables.delivery.c.marked_at)
    )
    return [(row.name, row.marked_at) for row in rows]


def _seconds(marks: list[tuple[str, datetime]]) -> float:
    return (marks[-1][1] - marks[0][1]).total_seconds()


def test_a_relay_gets_no_more_than_its_rate(tmp_path: Path) -> None:
    people = {f"p{number}": f"person-{number}@d{number}.example.com" for number in range(21)}
    with LedgerRelay(tmp_path / "ledger") as simulated:
        settings = simulated.settings
        settings["outbound"] += f"\nrate = {_RATE}"
        with Box(tmp_path, **settings) as box:
            box.populate(people)
            box.start()
            box.plan("spring")
            box.wait(lambda: box.counts("spring") == {"accepted": len(people)}, "all to be sent")
            # The first two may go at once: a tenth of a second's worth is the burst.
            assert _seconds(_marks(box)) >= (len(people) - 1 - _RATE / 10) / _RATE - _CLOCK


def test_a_crowded_domain_waits_and_the_others_do_not(tmp_path: Path) -> None:
    crowd = {f"c{number}": f"person-{number}@crowded.example.com" for number in range(12)}
    others = {f"o{number}": f"person-{number}@d{number}.example.com" for number in range(12)}
    with (
        LedgerRelay(tmp_path / "ledger") as simulated,
        Box(tmp_path, sending="domain_rate = 4", **simulated.settings) as box,
    ):
        box.populate({**crowd, **others})
        box.start()
        box.plan("spring")
        box.wait(lambda: box.counts("spring") == {"accepted": 24}, "all to be sent")
        marks = _marks(box)
        crowded = [moment for name, moment in marks if name == "crowded.example.com"]
        assert (crowded[-1] - crowded[0]).total_seconds() >= (len(crowd) - 1) / 4 - _CLOCK
        last_other = max(moment for name, moment in marks if name != "crowded.example.com")
        assert last_other < crowded[-1]
