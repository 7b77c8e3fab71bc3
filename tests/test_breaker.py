"""When a run halts by itself."""

from __future__ import annotations

import pytest

from mailbound import breaker
from mailbound.config import Breaker

LIMITS = Breaker(blame_count=20, blame_share=0.05, bounce_count=50, bounce_share=0.2)


@pytest.mark.parametrize(
    ("blame", "dead", "settled", "why"),
    [
        pytest.param(0, 0, 0, None, id="nothing yet"),
        pytest.param(19, 0, 19, None, id="too few to tell"),
        pytest.param(20, 0, 20, "20 of 20 deliveries failed with a reply that blames us", id="all blame us"),
        pytest.param(20, 0, 401, None, id="a small share blames us"),
        pytest.param(
            20, 0, 400, "20 of 400 deliveries failed with a reply that blames us", id="one in twenty"
        ),
        pytest.param(0, 49, 49, None, id="too few dead to tell"),
        pytest.param(0, 50, 250, "50 of 250 addresses are said to be dead", id="one in five is dead"),
        pytest.param(0, 50, 251, None, id="fewer than one in five"),
    ],
)
def test_a_run_halts_over_a_count_and_a_share(blame: int, dead: int, settled: int, why: str | None) -> None:
    assert breaker.trips(blame=blame, dead=dead, settled=settled, limits=LIMITS) == why
