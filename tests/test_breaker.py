"""When a run halts since its refusals blame us."""

from __future__ import annotations

import pytest

from mailbound import breaker
from mailbound.config import Breaker

LIMITS = Breaker(blame_count=20, blame_share=0.05)


@pytest.mark.parametrize(
    ("blame", "settled", "why"),
    [
        pytest.param(0, 0, None, id="nothing yet"),
        pytest.param(19, 19, None, id="too few to tell"),
        pytest.param(20, 20, "20 of 20 deliveries failed with a reply that blames us", id="all blame us"),
        pytest.param(20, 401, None, id="a small share blames us"),
        pytest.param(20, 400, "20 of 400 deliveries failed with a reply that blames us", id="one in twenty"),
    ],
)
def test_a_run_halts_over_a_count_and_a_share(blame: int, settled: int, why: str | None) -> None:
    assert breaker.trips(blame=blame, settled=settled, limits=LIMITS) == why
