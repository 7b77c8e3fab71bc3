"""A relay that is down is asked again in steps, once for all who wait."""

import asyncio
import random

import pytest

import scripted_relay
from mailbound import pacing, relay
from mailbound.model import Letter, Outcome, Phase, Reply, Result

LETTER = Letter(1, 1, "bounces@shop.example", "ann@example.net", "abc", b"Subject: x\r\n\r\nhello\r\n")
BUSY = "S: 421 4.3.2 too busy\nDROP"
STEP = pacing.Backoff(first=10.0, cap=40.0, spread=0.0)
RARE = pacing.Backoff(first=900.0, cap=900.0, spread=0.0)


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now = 1000.0
        self.slept = []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def play(scenario, *scripts, **values):
    """Run `scenario(source, clock, server)` on a Relay whose n-th connection plays the n-th script."""

    async def main():
        async with scripted_relay.serve(*scripts) as server:
            clock = Clock()
            account = relay.Account(
                host="127.0.0.1", port=server.port, tls="insecure", ehlo_name="me.example", **values
            )
            source = relay.Relay(account, reconnect=STEP, alarm=RARE, clock=clock, sleep=clock.sleep)
            return await scenario(source, clock, server)

    return asyncio.run(main())


def test_a_relay_that_is_down_is_asked_again_in_steps():
    async def scenario(source, clock, server):
        (await source.connect()).close()
        return clock.slept, server.connections

    slept, connections = play(scenario, BUSY, BUSY, BUSY, BUSY, scripted_relay.hello())
    assert slept == [10.0, 20.0, 40.0, 40.0]
    assert connections == 5


def test_however_many_wait_there_is_one_attempt_for_each_step():
    async def scenario(source, clock, server):
        waiting = [asyncio.ensure_future(source.connect()) for _ in range(100)]
        sessions = await asyncio.gather(*waiting)
        for session in sessions:
            session.close()
        return clock.slept, server.connections

    # The first hundred start together, before anybody knows. After them there is one attempt a step.
    slept, connections = play(scenario, *[BUSY] * 103, scripted_relay.hello())
    assert slept == [10.0, 20.0, 40.0, 40.0]
    assert connections == 100 + 4 + 99


def test_its_state_can_be_read():
    async def scenario(source, clock, server):
        states = []

        async def look(seconds):
            states.append(
                (source.down_since, source.retry_at, source.error.reply.code, source.needs_attention)
            )
            await Clock.sleep(clock, seconds)

        source._sleep = look
        assert (source.down_since, source.retry_at, source.error) == (None, None, None)
        session = await source.connect()
        session.close()
        assert (source.down_since, source.retry_at, source.error) == (None, None, None)
        return states

    states = play(scenario, BUSY, BUSY, scripted_relay.hello())
    assert states == [(1000.0, 1010.0, 421, False), (1000.0, 1030.0, 421, False)]


def test_a_refused_password_is_tried_rarely():
    refusing = scripted_relay.hello("AUTH PLAIN") + "C: AUTH PLAIN\nS: 535 5.7.8 no\nHANG"
    accepting = scripted_relay.hello("AUTH PLAIN") + "C: AUTH PLAIN\nS: 235 yes\nHANG"

    async def scenario(source, clock, server):
        async def look(seconds):
            assert source.needs_attention
            await Clock.sleep(clock, seconds)

        source._sleep = look
        (await source.connect()).close()
        assert not source.needs_attention
        return clock.slept

    assert play(scenario, refusing, refusing, accepting, username="shop", password="x") == [900.0, 900.0]


def test_after_a_refused_token_a_new_one_is_tried_soon_and_then_rarely():
    refusing = scripted_relay.hello("AUTH XOAUTH2") + "C: AUTH XOAUTH2\nS: 535 5.7.8 it has expired\nHANG"
    accepting = scripted_relay.hello("AUTH XOAUTH2") + "C: AUTH XOAUTH2\nS: 235 yes\nHANG"
    asked = []

    async def token():
        asked.append(True)
        return f"token-{len(asked)}"

    async def scenario(source, clock, server):
        (await source.connect()).close()
        return clock.slept

    slept = play(scenario, refusing, refusing, accepting, username="shop", token=token)
    assert slept == [10.0, 900.0]
    assert len(asked) == 3


def test_a_421_halves_the_concurrency():
    async def scenario(source, clock, server):
        (await source.connect()).close()
        return source.concurrency.allowed(1000.0)

    assert play(scenario, BUSY, scripted_relay.hello()) == 5


def test_a_cancelled_watcher_leaves_its_place_to_another():
    async def scenario(source, clock, server):
        asleep = asyncio.Event()

        async def sleep(seconds):
            asleep.set()
            await asyncio.Event().wait()

        source._sleep = sleep
        first = asyncio.ensure_future(source.connect())
        await asleep.wait()
        source._sleep = clock.sleep
        second = asyncio.ensure_future(source.connect())
        await asyncio.sleep(0)
        first.cancel()
        (await second).close()
        return server.connections

    assert play(scenario, BUSY, scripted_relay.hello()) == 2


@pytest.mark.parametrize(
    ("outcome", "transactions", "down"),
    [
        (Outcome(Result.ACCEPTED, Phase.FINAL_DOT, Reply(250, "ok")), 1, False),
        (Outcome(Result.REFUSED, Phase.RCPT, Reply(550, "no")), 1, False),
        (Outcome(Result.WITHDRAWN, Phase.BODY), 1, False),
        (Outcome(Result.UNKNOWN, Phase.FINAL_DOT), 1, False),
        (Outcome(Result.UNTRIED, Phase.MAIL, Reply(550, "not you")), 1, True),
        (Outcome(Result.UNTRIED, Phase.MAIL, Reply(550, "not you")), 5, True),
        (Outcome(Result.UNTRIED, Phase.MAIL, Reply(421, "busy")), 1, True),
        (Outcome(Result.UNTRIED, Phase.MAIL, Reply(421, "enough of this session")), 5, False),
        (Outcome(Result.UNTRIED, Phase.MAIL, None, "closed"), 1, True),
        (Outcome(Result.UNTRIED, Phase.MAIL, None, "closed while idle"), 5, False),
        (Outcome(Result.UNTRIED, Phase.DATA, None, "closed"), 5, True),
    ],
    ids=str,
)
def test_only_what_is_the_relays_fault_puts_it_down(outcome, transactions, down):
    async def scenario(source, clock, server):
        session = await source.connect()
        session.transactions = transactions
        source.report(session, outcome)
        session.close()
        return source.down_since is not None

    assert play(scenario, scripted_relay.hello()) is down


def test_a_session_closed_while_idle_is_no_failure_of_the_relay():
    async def yes():
        return True

    idle = "C: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\nS: 354 go\nBODY\nS: 250 ok\nDROP"

    async def scenario(source, clock, server):
        session = await source.connect()
        source.report(session, await session.transact(LETTER, yes))
        await scripted_relay.until(lambda: not session.usable)
        outcome = await session.transact(LETTER, yes)
        source.report(session, outcome)
        return outcome.result, source.down_since

    assert play(scenario, scripted_relay.hello() + idle) == (Result.UNTRIED, None)


def test_a_relay_that_greets_and_refuses_every_mail_is_asked_ever_more_rarely():
    async def yes():
        return True

    async def scenario(source, clock, server):
        for _ in range(4):
            session = await source.connect()
            source.report(session, await session.transact(LETTER, yes))
            session.close()
        return clock.slept

    assert play(scenario, scripted_relay.hello() + "C: MAIL\nS: 550 5.7.1 not you\nHANG") == [
        10.0,
        20.0,
        40.0,
    ]


def test_success_forgets_the_failures():
    async def scenario(source, clock, server):
        for outcome in (
            Outcome(Result.UNTRIED, Phase.MAIL, Reply(550, "not you")),
            Outcome(Result.UNTRIED, Phase.MAIL, Reply(550, "not you")),
            Outcome(Result.ACCEPTED, Phase.FINAL_DOT, Reply(250, "ok")),
            Outcome(Result.UNTRIED, Phase.MAIL, Reply(550, "not you")),
        ):
            session = await source.connect()
            source.report(session, outcome)
            session.close()
        (await source.connect()).close()
        return clock.slept

    assert play(scenario, scripted_relay.hello()) == [10.0, 20.0, 10.0]


def test_the_back_off_is_jittered(monkeypatch):
    monkeypatch.setattr(random, "random", lambda: 0.5)

    async def scenario(source, clock, server):
        source._reconnect = pacing.Backoff(first=10.0, cap=40.0, spread=0.2)
        (await source.connect()).close()
        return clock.slept

    assert play(scenario, BUSY, scripted_relay.hello()) == [11.0]
