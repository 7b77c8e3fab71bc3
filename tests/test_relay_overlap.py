"""Two letters on one connection: the final dot of the first travels with the envelope of the second."""

import asyncio
import itertools
import re

import pytest

import scripted_relay
from mailbound import relay
from mailbound.model import Letter, Phase, Result

Q = Result
P = Phase

FIRST = Letter(
    1, 1, "bounces+one@shop.example", "ann@example.net", "one", b"Subject: one\r\n\r\nend of one\r\n"
)
SECOND = Letter(
    2, 1, "bounces+two@shop.example", "bob@example.net", "two", b"Subject: two\r\n\r\nend of two\r\n"
)

ACCEPTED = (Q.ACCEPTED, P.FINAL_DOT)

# What the relay says: to the first letter's dot, and to each command of the second.
GOOD = {
    "dot 1": "250 2.0.0 one",
    "MAIL 2": "250 2.1.0 ok",
    "RCPT 2": "250 2.1.5 ok",
    "DATA 2": "354 go",
    "dot 2": "250 2.0.0 two",
}
_AHEAD = scripted_relay.hello("PIPELINING") + "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\n"
_TOGETHER = "BODY\nC: MAIL FROM:<bounces+two@\nC: RCPT TO:<bob@\nC: DATA\n"  # before anything is answered

IN_ONE_SEGMENT = pytest.param("S:", id="in one segment")
BYTE_BY_BYTE = pytest.param("S~", id="byte by byte")
CUTS = pytest.mark.parametrize("cut", [IN_ONE_SEGMENT, BYTE_BY_BYTE])


class Courier:
    """Carries both letters as a courier does: with the dot of the first it announces the second."""

    def __init__(self, session, *, grants=(True, True)):
        self.session = session
        self.grants = grants
        self.outcomes = {}
        self.done = asyncio.Event()

    def carry(self, number):
        letter = (FIRST, SECOND)[number]
        self.session.begin(letter, _Passage(self, number))

    def ready(self, number):
        if not self.grants[number]:
            self.session.withdraw()
            return
        self.session.finish()
        if number == 0 and self.session.usable:
            self.carry(1)

    def ended(self, number, outcome):
        assert number not in self.outcomes, "an end is told once"
        self.outcomes[number] = outcome
        if len(self.outcomes) == 2:
            self.done.set()


class _Passage:
    def __init__(self, courier, number):
        self.courier, self.number = courier, number

    def ready(self):
        self.courier.ready(self.number)

    def ended(self, outcome):
        self.courier.ended(self.number, outcome)


def both(text, *, deadlines=None, grants=(True, True), ends=False):
    """Carry both letters over a relay that plays `text`; return what became of each, the relay, and if it can go on.

    Where it `ends` after both of them, that is waited for.
    """

    async def main():
        async with scripted_relay.serve(text) as server:
            server.part = b"end of two\r\n"
            account = relay.Account(
                host="127.0.0.1",
                port=server.port,
                tls="insecure",
                ehlo_name="me.example",
                deadlines=deadlines or relay.Deadlines(),
            )
            session = await relay.open(account)
            courier = Courier(session, grants=grants)
            courier.carry(0)
            await asyncio.wait_for(courier.done.wait(), 10)
            if ends:
                await scripted_relay.until(lambda: not session.usable)
            usable = session.usable
            session.close()
            return [courier.outcomes[number] for number in sorted(courier.outcomes)], server, usable

    return asyncio.run(main())


def conversation(replies, cut, end=""):
    """Return a script in which the relay gives `replies`, by what they answer, and then comes to its `end`."""
    lines = []
    for name, reply in replies.items():
        lines += ["BODY"] if name == "dot 2" else []
        lines.append(f"{cut} {reply}")
    return _AHEAD + _TOGETHER + "\n".join(lines) + f"\n{end}\n"


def up_to(name):
    """Return the good replies before that to `name`."""
    return {each: GOOD[each] for each in itertools.takewhile(lambda each: each != name, GOOD)}


def kinds(outcomes):
    return [(outcome.result, outcome.phase) for outcome in outcomes]


@CUTS
def test_the_dot_of_one_letter_and_the_envelope_of_the_next_are_written_together(cut):
    # The relay answers nothing before it has read both.
    outcomes, server, usable = both(conversation(GOOD, cut))
    assert kinds(outcomes) == [ACCEPTED, ACCEPTED]
    assert [outcome.reply.text for outcome in outcomes] == ["2.0.0 one", "2.0.0 two"]
    assert server.bodies == [letter.content + b".\r\n" for letter in (FIRST, SECOND)]
    assert usable


_REFUSALS = {
    # what is refused: how the two letters end
    ("dot 1", 451): ((Q.DEFERRED, P.FINAL_DOT), ACCEPTED),
    ("dot 1", 552): ((Q.REFUSED, P.FINAL_DOT), ACCEPTED),
    ("dot 1", 421): ((Q.DEFERRED, P.FINAL_DOT), (Q.UNTRIED, P.MAIL)),
    ("dot 1", 354): ((Q.UNKNOWN, P.FINAL_DOT), (Q.UNTRIED, P.MAIL)),
    ("MAIL 2", 451): (ACCEPTED, (Q.UNTRIED, P.MAIL)),
    ("MAIL 2", 550): (ACCEPTED, (Q.UNTRIED, P.MAIL)),
    ("MAIL 2", 421): (ACCEPTED, (Q.UNTRIED, P.MAIL)),
    ("MAIL 2", 354): (ACCEPTED, (Q.UNTRIED, P.MAIL)),
    ("RCPT 2", 450): (ACCEPTED, (Q.DEFERRED, P.RCPT)),
    ("RCPT 2", 550): (ACCEPTED, (Q.REFUSED, P.RCPT)),
    ("RCPT 2", 421): (ACCEPTED, (Q.UNTRIED, P.RCPT)),
    ("RCPT 2", 354): (ACCEPTED, (Q.UNTRIED, P.RCPT)),
    ("DATA 2", 451): (ACCEPTED, (Q.DEFERRED, P.DATA)),
    ("DATA 2", 554): (ACCEPTED, (Q.REFUSED, P.DATA)),
    ("DATA 2", 421): (ACCEPTED, (Q.UNTRIED, P.DATA)),
    ("DATA 2", 250): (ACCEPTED, (Q.UNTRIED, P.DATA)),
    ("dot 2", 451): (ACCEPTED, (Q.DEFERRED, P.FINAL_DOT)),
    ("dot 2", 552): (ACCEPTED, (Q.REFUSED, P.FINAL_DOT)),
    ("dot 2", 421): (ACCEPTED, (Q.DEFERRED, P.FINAL_DOT)),
    ("dot 2", 354): (ACCEPTED, (Q.UNKNOWN, P.FINAL_DOT)),
}
_FOLLOWERS = {"MAIL 2": ("RCPT 2", "DATA 2"), "RCPT 2": ("DATA 2",), "DATA 2": ()}


@CUTS
@pytest.mark.parametrize(("where", "code"), _REFUSALS, ids=str)
def test_a_refusal_is_of_the_letter_whose_command_it_answers(where, code, cut):
    goes_on = code // 100 in (4, 5) and code != 421
    replies = {**up_to(where), where: f"{code} 4.0.0 why"}
    end = ""
    if not goes_on:
        end = "HANG"
    elif where in ("dot 1", "dot 2"):
        replies = {**GOOD, **replies}
    else:
        replies |= dict.fromkeys(_FOLLOWERS[where], "503 5.5.1 bad sequence")
        end = "" if where == "MAIL 2" else "C: RSET\nS: 250 ok"
    outcomes, server, usable = both(conversation(replies, cut, end))
    assert kinds(outcomes) == list(_REFUSALS[where, code])
    assert usable is goes_on
    sent = where == "dot 2" or (where == "dot 1" and goes_on)
    assert server.bodies == [letter.content + b".\r\n" for letter in ((FIRST, SECOND) if sent else (FIRST,))]


_LOSSES = {
    # before which reply: how the two letters end
    "dot 1": ((Q.UNKNOWN, P.FINAL_DOT), (Q.UNTRIED, P.MAIL)),
    "MAIL 2": (ACCEPTED, (Q.UNTRIED, P.MAIL)),
    "RCPT 2": (ACCEPTED, (Q.UNTRIED, P.RCPT)),
    "DATA 2": (ACCEPTED, (Q.UNTRIED, P.DATA)),
    "dot 2": (ACCEPTED, (Q.UNKNOWN, P.FINAL_DOT)),
}
_DEADLINES = {
    "dot 1": "final_dot",
    "MAIL 2": "mail",
    "RCPT 2": "rcpt",
    "DATA 2": "data",
    "dot 2": "final_dot",
}
_ENDS = {
    "dropped": "DROP",
    "dropped in the middle of a line": "S= 25\nDROP",
    "silent": "HANG",
    "silent in the middle of a line": "S= 250 o\nHANG",
    "nonsense": "S: 2500 what\nHANG",
}


@CUTS
@pytest.mark.parametrize("end", _ENDS.values(), ids=_ENDS)
@pytest.mark.parametrize("where", _LOSSES)
def test_a_loss_leaves_in_doubt_the_letter_whose_dot_was_not_answered_and_no_other(where, end, cut):
    short = relay.Deadlines(**{_DEADLINES[where]: 0.05}, octets_per_second=1e9)
    text = conversation(up_to(where), cut, ("BODY\n" if where == "dot 2" else "") + end)
    outcomes, _, usable = both(text, deadlines=short if "HANG" in end else None)
    assert kinds(outcomes) == list(_LOSSES[where])
    assert all(outcome.reply is None for outcome in outcomes if outcome.result is not Q.ACCEPTED)
    assert not usable


# One reply too many or too few shifts all that follow. It is seen at DATA, whose reply is like no other; until then
# nobody can tell whose a 250 is.
_SHIFTED = {
    "one more to the first dot": (
        ("dot 1", "dot 1", "MAIL 2", "RCPT 2", "DATA 2"),
        ACCEPTED,
        (Q.UNTRIED, P.DATA),
    ),
    "one more to MAIL": (("dot 1", "MAIL 2", "MAIL 2", "RCPT 2", "DATA 2"), ACCEPTED, (Q.UNTRIED, P.DATA)),
    "one more to RCPT": (("dot 1", "MAIL 2", "RCPT 2", "RCPT 2", "DATA 2"), ACCEPTED, (Q.UNTRIED, P.DATA)),
    "one is missing": (("dot 1", "RCPT 2", "DATA 2"), ACCEPTED, (Q.UNTRIED, P.RCPT)),
    "two are missing": (("dot 1", "DATA 2"), ACCEPTED, (Q.UNTRIED, P.MAIL)),
    "only DATA is answered": (("DATA 2",), (Q.UNKNOWN, P.FINAL_DOT), (Q.UNTRIED, P.MAIL)),
}


@CUTS
@pytest.mark.parametrize(("said", "first", "second"), _SHIFTED.values(), ids=_SHIFTED)
def test_replies_that_shift_end_the_connection_before_the_second_letter_is_sent(said, first, second, cut):
    lines = "\n".join(f"{cut} {GOOD[name]}" for name in said)
    outcomes, server, usable = both(_AHEAD + _TOGETHER + lines + "\nHANG\n")
    assert kinds(outcomes) == [first, second]
    assert b"Subject: two" not in server.rest
    assert not usable


@CUTS
def test_a_reply_that_nobody_asked_for_ends_a_session_after_both_letters(cut):
    outcomes, _, usable = both(conversation(GOOD, cut, f"{cut} 250 2.0.0 three"), ends=True)
    assert kinds(outcomes) == [ACCEPTED, ACCEPTED]
    assert not usable


@pytest.mark.parametrize(
    ("end", "second"),
    [
        ("DROP", (Q.UNTRIED, P.BODY)),
        ("S: 421 4.3.2 bye\nHANG", (Q.UNTRIED, P.BODY)),
        ("S: 451 4.3.0 disk full\nHANG", (Q.DEFERRED, P.BODY)),
        ("S: 552 5.3.4 too big\nHANG", (Q.REFUSED, P.BODY)),
    ],
)
def test_what_happens_to_the_body_of_the_second_takes_nothing_from_the_first(end, second):
    outcomes, server = withheld(conversation(up_to("dot 2"), "S:", f"PART\n{end}"))
    assert kinds(outcomes) == [ACCEPTED, second]
    assert not re.search(rb"\r\n\.\r\n", server.rest)


def withheld(text):
    """Carry both letters, but keep the second dot back until the relay has broken off."""

    async def main():
        async with scripted_relay.serve(text) as server:
            server.part = b"end of two\r\n"
            account = relay.Account(
                host="127.0.0.1", port=server.port, tls="insecure", ehlo_name="me.example"
            )
            session = await relay.open(account)
            courier = Courier(session)
            finish = courier.ready
            waiting = asyncio.Event()
            courier.ready = lambda number: waiting.set() if number == 1 else finish(number)
            courier.carry(0)
            await waiting.wait()
            await scripted_relay.until(lambda: not session.usable)
            finish(1)
            await courier.done.wait()
            return [courier.outcomes[number] for number in (0, 1)], server

    return asyncio.run(main())


def test_a_second_letter_that_is_withdrawn_takes_nothing_from_the_first():
    outcomes, server, usable = both(conversation(up_to("dot 2"), "S:", "HANG"), grants=(True, False))
    assert kinds(outcomes) == [ACCEPTED, (Q.WITHDRAWN, P.BODY)]
    assert SECOND.content.startswith(server.rest), "without its final dot, if anything"
    assert not usable


@CUTS
def test_without_pipelining_the_second_waits_for_the_answer_to_the_first_dot(cut):
    step = f"C: MAIL\n{cut} 250 ok\nC: RCPT\n{cut} 250 ok\nC: DATA\n{cut} 354 go\nBODY\n{cut} 250 2.0.0 ok\n"
    outcomes, _, usable = both(scripted_relay.hello() + step * 2)
    assert kinds(outcomes) == [ACCEPTED, ACCEPTED]
    assert usable
