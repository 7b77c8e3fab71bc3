from datetime import UTC, datetime, timedelta

import pytest

from mailbound import holding
from mailbound.holding import Known
from mailbound.lifecycle import RunState

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
_FREE = {"connections": 10, "allowed": 10}

_STORES = {
    "nothing": (_FREE, ""),
    "down": (
        {**_FREE, "allowed": 5, "down_until": NOW, "why": "connect: Connection refused"},
        "the relay, which is down until 2026-11-24 12:00:00 UTC: connect: Connection refused",
    ),
    "fewer connections": (
        {**_FREE, "allowed": 5, "rate": 9.0, "waits": True},
        "the relay, which asked for less or was away: 5 of 10 connections",
    ),
    "a rate that is not reached": ({**_FREE, "rate": 20.0}, ""),
    "the rate": ({**_FREE, "rate": 20.0, "waits": True}, "the rate of 20 a second"),
    "a share of the rate": (
        {**_FREE, "rate": 20.0, "nodes": 3, "waits": True},
        "the rate of 20 a second, of which 6.67 are this node's",
    ),
    "a domain": (
        {**_FREE, "crowded": "example.com", "domain_rate": 2.5},
        "the rate of example.com, 2.5 a second",
    ),
}


@pytest.mark.parametrize(("known", "phrase"), _STORES.values(), ids=_STORES)
def test_what_holds_a_store_back(known, phrase):
    assert holding.of_store(Known(**known)) == phrase


_LATER = NOW + timedelta(hours=1)
_RUNS = {
    "paused": (RunState.PAUSED, {}, "a pause; `mailbound activity resume` goes on"),
    "halted": (RunState.HALTED, {"note": "too many bounces"}, "a halt: too many bounces"),
    "over": (RunState.SENT, {}, ""),
    "no daemon": (RunState.SENDING, {"nodes": {}, "opens_at": _LATER}, "its daemon: none is alive"),
    "window": (RunState.SENDING, {"opens_at": _LATER}, "its window, which opens 2026-11-24 13:00:00 UTC"),
    "retries": (
        RunState.SENDING,
        {"due_at": _LATER},
        "its deliveries, of which none is due before 2026-11-24 13:00:00 UTC",
    ),
    "nothing": (RunState.SENDING, {"due_at": NOW}, holding.NOTHING),
    "all nodes alike": (RunState.SENDING, {"nodes": {"a": "the rate", "b": "the rate"}}, "the rate"),
    "a node that is silent": (
        RunState.SENDING,
        {"nodes": {"a": "the rate"}, "silent": {"a": timedelta(seconds=40)}},
        "its daemon, not heard of for 40 s; its log may say why",
    ),
    "one node": (
        RunState.SENDING,
        {"nodes": {"b": "", "a": "the relay is down"}},
        f"a: the relay is down; b: {holding.NOTHING}",
    ),
}


@pytest.mark.parametrize(("state", "known", "phrase"), _RUNS.values(), ids=_RUNS)
def test_what_holds_a_run_back(state, known, phrase):
    assert holding.of_run(state, **{"now": NOW, "nodes": {"a": ""}, **known}) == phrase
