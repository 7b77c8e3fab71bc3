"""What the machine gives the daemon is less than it could use: it goes slower, and goes on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import sqlalchemy as sa

from box import Box
from ledger_relay import LedgerRelay
from mailbound.database import tables
from servers import need

_PEOPLE = {f"person-{number}": f"person-{number}@remote.test" for number in range(200)}
_CONNECTIONS = 60
_FILES = 50  # with which there cannot be so many connections


def test_too_few_open_files_cost_nobody_an_attempt(tmp_path: Path) -> None:
    with (
        LedgerRelay(tmp_path / "ledger") as relay,
        Box(tmp_path, connections=_CONNECTIONS, **relay.settings) as box,
    ):
        box.populate(_PEOPLE)
        box.schedule("spring")
        box.start(prefix=[need("prlimit"), f"--nofile={_FILES}"])
        box.wait(lambda: box.run_state("spring") == "sent", "the run to be sent")
        assert "Too many open files" in box.log.read_text()
        times = Counter(address for _, address in relay.ledger())
        assert times == dict.fromkeys(_PEOPLE.values(), 1)
        attempts = sa.select(tables.delivery.c.attempt).distinct()
        assert [row.attempt for row in box.rows(attempts)] == [1]
        assert box.stop() == 0
        assert "Traceback" not in box.log.read_text()
