"""Threads that call functions for an event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mailbound.database.threads import Threads


def with_threads(count, scenario):
    threads = Threads(count, name="test")
    try:
        return asyncio.run(scenario(threads))
    finally:
        threads.close()


def test_a_call_runs_on_a_thread_of_its_own_and_answers():
    async def scenario(threads):
        return await threads.call(threading.current_thread)

    assert with_threads(1, scenario).name == "test_0"


def test_what_a_call_raises_is_raised_to_its_caller_and_the_thread_goes_on():
    async def scenario(threads):
        with pytest.raises(ZeroDivisionError):
            await threads.call(lambda: 1 / 0)
        return await threads.call(lambda: 7)

    assert with_threads(1, scenario) == 7


def test_calls_to_one_thread_run_in_their_order():
    async def scenario(threads):
        seen = []
        await asyncio.gather(*(threads.call(lambda n=n: seen.append(n)) for n in range(100)))
        return seen

    assert with_threads(1, scenario) == list(range(100))


def test_several_threads_run_at_the_same_time():
    async def scenario(threads):
        meeting = threading.Barrier(3)
        return await asyncio.gather(*(threads.call(lambda: meeting.wait(timeout=20)) for _ in range(3)))

    assert sorted(with_threads(3, scenario)) == [0, 1, 2]


def test_a_call_goes_to_the_thread_that_became_idle_last():
    async def scenario(threads):
        meeting = threading.Barrier(3)
        await asyncio.gather(*(threads.call(lambda: meeting.wait(timeout=20)) for _ in range(3)))
        return [await threads.call(threading.current_thread) for _ in range(20)]

    assert len(set(with_threads(3, scenario)[1:])) == 1


def test_calls_that_outnumber_the_threads_are_all_made():
    async def scenario(threads):
        return await asyncio.gather(*(threads.call(lambda n=n: n) for n in range(500)))

    assert with_threads(3, scenario) == list(range(500))


def test_a_call_that_is_cancelled_before_it_began_is_not_made():
    async def scenario(threads):
        begun, gate, made = threading.Event(), threading.Event(), []
        first = asyncio.ensure_future(threads.call(lambda: (begun.set(), gate.wait(20))))
        await asyncio.to_thread(begun.wait, 20)
        second = asyncio.ensure_future(threads.call(lambda: made.append(1)))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        gate.set()
        await first
        await threads.call(lambda: None)
        return made

    assert with_threads(1, scenario) == []


def test_whoever_was_cancelled_during_the_call_is_not_told_and_the_call_ends():
    async def scenario(threads):
        begun, gate, made = threading.Event(), threading.Event(), []

        def slow():
            begun.set()
            gate.wait(20)
            made.append(1)

        call = asyncio.ensure_future(threads.call(slow))
        await asyncio.to_thread(begun.wait, 20)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        gate.set()
        await threads.call(lambda: None)
        return made

    assert with_threads(1, scenario) == [1]


def test_close_waits_for_what_has_begun():
    threads, made, begun, gate = Threads(1, name="test"), [], threading.Event(), threading.Event()

    async def leave_early():
        call = asyncio.ensure_future(threads.call(lambda: (begun.set(), gate.wait(20), made.append(1))))
        await asyncio.to_thread(begun.wait, 20)
        call.cancel()

    asyncio.run(leave_early())
    gate.set()
    threads.close()
    assert made == [1]
