"""What holds a run back now, in one phrase for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from mailbound.lifecycle import RunState
from mailbound.pacing import share

NOTHING = "nothing: it goes as fast as the relay takes it"


@dataclass(frozen=True, slots=True)
class Known:
    """What one node knows of how fast it may send for one store. What is not so is left out."""

    connections: int
    allowed: int  # connections, since the relay asked for fewer
    down_until: datetime | None = None
    why: str = ""  # it is down
    rate: float = 0.0  # of all nodes together
    nodes: int = 1
    waits: bool = False  # for the relay's next token
    crowded: str = ""  # a domain whose recipients wait for its rate
    domain_rate: float = 0.0


def of_store(known: Known) -> str:
    """Return what holds a node back from sending for a store, the narrowest limit; "" if nothing does."""
    if known.down_until is not None:
        return f"the relay, which is down until {_clock(known.down_until)}: {known.why}"
    if known.allowed < known.connections:
        return (
            f"the relay, which asked for less or was away: {known.allowed} of {known.connections} connections"
        )
    if known.waits:
        return f"the rate of {_rate(known.rate, known.nodes)}"
    if known.crowded:
        return f"the rate of {known.crowded}, {_rate(known.domain_rate, known.nodes)}"
    return ""


def of_run(
    state: RunState,
    *,
    now: datetime,
    note: str = "",
    opens_at: datetime | None = None,
    due_at: datetime | None = None,
    nodes: Mapping[str, str],
    silent: Mapping[str, timedelta] | None = None,
) -> str:
    """Return what holds a run back, "" if it is over.

    `opens_at` is when its window opens, None while it is open; `due_at` when its next delivery is due, None if there
    is none in the queue; `nodes` is what holds back each live node from sending for its store. Those that are `silent`,
    and for how long, may be dead or unable to write: what they said last is of no use.
    """
    if state is RunState.PAUSED:
        return "a pause; `mailbound activity resume` goes on"
    if state is RunState.HALTED:
        return f"a halt: {note}"
    if state is not RunState.SENDING:
        return ""
    if not nodes:
        return "its daemon: none is alive"
    if opens_at is not None:
        return f"its window, which opens {_clock(opens_at)}"
    if due_at is not None and due_at > now:
        return f"its deliveries, of which none is due before {_clock(due_at)}"
    said = dict(nodes)
    for name, span in (silent or {}).items():
        said[name] = f"its daemon, not heard of for {span.total_seconds():.0f} s; its log may say why"
    phrases = set(said.values())
    if len(phrases) == 1:
        return phrases.pop() or NOTHING
    return "; ".join(f"{name}: {phrase or NOTHING}" for name, phrase in sorted(said.items()))


def _rate(rate: float, nodes: int) -> str:
    whole = f"{rate:g} a second"
    return whole if nodes == 1 else f"{whole}, of which {share(rate, nodes):.3g} are this node's"


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
