"""The benchmark runs: each measurement once, with next to nothing to measure, so that it does not rot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from servers import need, need_root

ROOT = Path(__file__).parents[1]
NEEDED = {
    "sending": ["smtp-source", "initdb"],
    "transport": ["smtp-source"],
    "composing": [],
    "fetching": ["dovecot"],
}
"""Those that are quick; the others share their parts."""


def bench(*words: str) -> str:
    """Run a program of the benchmark and return what it prints."""
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout


_WITH_TEN_CONNECTIONS = """
import runpy, sys
sys.path[:0] = ["bench", "tests"]
import sending
sending._GOALS = {kind: {10: goals[10]} for kind, goals in sending._GOALS.items()}
runpy.run_path("bench", run_name="__main__")
"""
"""Each measurement of sending takes as long with few messages as with many, for it starts a daemon and a relay."""


@pytest.mark.parametrize("name", NEEDED)
def test_a_measurement_gives_figures_that_mean_something(name: str, tmp_path: Path) -> None:
    need_root()
    for program in NEEDED[name]:
        need(program)
    written = tmp_path / "figures.json"
    asked = ["--only", name, "--rounds", "1", "--messages", "50", "--output", str(written)]
    printed = bench("-c", _WITH_TEN_CONNECTIONS, *asked)
    assert json.loads(printed) == json.loads(written.read_text())
    figures: list[dict[str, Any]] = json.loads(printed)["figures"][name]
    assert figures
    for figure in figures:
        assert figure["rounds"] == [figure["median"]]
        # A run may well have sent its last message before the command that stops it has ended.
        assert figure["median"] > 0 or "after `activity" in figure["name"], figure


def test_one_round_of_sending_can_be_looked_at_alone() -> None:
    need_root()
    need("smtp-source")
    first, last = bench("bench/sending.py", "--recipients", "50", "--sink", "postfix").splitlines()
    assert json.loads(first)["mailbound"]["rate"] > 0
    assert json.loads(last)["cpu_to_smtp_source"] > 0


def test_a_measurement_that_is_not_there_is_named_with_those_that_are() -> None:
    done = subprocess.run(
        [sys.executable, "bench", "--only", "sanding"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "there is no sanding; there are sending, slow" in done.stderr


_FIGURES = """
import json
import figures
from figures import Figure
order = []
sides = {name: (lambda name=name: order.append(name) or len(order)) for name in ("ours", "theirs")}
seen = figures.take_turns(sides, 3)
floor = [Figure("f", [1.0, 9.0, value], 2.0).met for value in (1.9, 2.0)]
ceiling = [Figure("f", [1.0, 9.0, value], 2.0, at_most=True).met for value in (2.0, 2.1)]
print(json.dumps([order, seen, floor, ceiling, figures.ratios([2, 9], [1, 3])]))
"""


def test_contestants_take_turns_and_the_median_is_held_to_the_goal() -> None:
    order, seen, floor, ceiling, ratios = json.loads(
        bench("-c", f"import sys; sys.path.append('bench'){_FIGURES}")
    )
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert seen == {"ours": [1, 4, 5], "theirs": [2, 3, 6]}
    assert (floor, ceiling) == ([False, True], [True, False])
    assert ratios == [2, 3]
