"""Verdicts: what each reply, and each silence, means in each phase of a transaction."""

import asyncio

import pytest

import scripted_relay
from mailbound import relay
from mailbound.model import Letter, Phase, Reply, Result

CONTENT = b"Subject: hello\r\n\r\n.one dot\r\n..two dots\r\n.\r\nend\r\n"
STUFFED = b"Subject: hello\r\n\r\n..one dot\r\n...two dots\r\n..\r\nend\r\n.\r\n"
LETTER = Letter(
    delivery_id=1,
    attempt=1,
    return_path="bounces+abc@shop.example",
    recipient="ann+x=y@example.net",
    envid="abc",
    content=CONTENT,
)

PIPELINED = pytest.param(True, id="pipelined")
STEPWISE = pytest.param(False, id="stepwise")
BOTH_WAYS = pytest.mark.parametrize("pipelined", [PIPELINED, STEPWISE])

Q = Result
P = Phase


async def yes() -> bool:
    return True


async def no() -> bool:
    return False


def account(port, **values):
    return relay.Account(host="127.0.0.1", port=port, tls="insecure", ehlo_name="me.example", **values)


def letters(*scripts, letter=LETTER, marks=(yes,), deadlines=None, leave=True):
    """Send one letter for each mark in a single session; return the outcomes, the relay and the session."""

    async def main():
        async with scripted_relay.serve(*scripts) as server:
            server.part = b"end\r\n"
            session = await relay.open(account(server.port, deadlines=deadlines or relay.Deadlines()))
            outcomes = [await session.transact(letter, mark) for mark in marks]
            if leave:
                usable = session.usable
                session.close()
                session.was_usable = usable
            return outcomes, server, session

    return asyncio.run(main())


def one(script, **values):
    (outcome,), server, session = letters(script, **values)
    return outcome, server, session


def script(mail="250 ok", rcpt="250 ok", data="354 go", dot="250 queued", *, pipelined, keywords=()):
    """Return a conversation with these replies; a reply of None ends it with a drop, "" leaves a step out."""
    steps = [("C: MAIL", mail), ("C: RCPT", rcpt), ("C: DATA", data)]
    if pipelined:
        lines = [command for command, _ in steps] + [f"S: {reply}" if reply else "DROP" for _, reply in steps]
    else:
        lines = []
        for command, reply in steps:
            lines += [command, f"S: {reply}" if reply else "DROP"]
            if reply is None or not reply.startswith("3" if command == "C: DATA" else "2"):
                break
    if data == "354 go":
        lines += ["BODY", f"S: {dot}" if dot else "DROP"]
    text = scripted_relay.hello(*keywords, *(["PIPELINING"] if pipelined else [])) + "\n".join(lines)
    return text.partition("DROP")[0] + "DROP" if "DROP" in text else text


# Each code in each phase


@BOTH_WAYS
@pytest.mark.parametrize("code", [200, 250, 251, 259, 299])
def test_any_2yz_to_the_final_dot_is_an_acceptance(code, pipelined):
    outcome, server, session = one(script(dot=f"{code} yes", pipelined=pipelined))
    assert (outcome.result, outcome.phase, outcome.reply) == (Q.ACCEPTED, P.FINAL_DOT, Reply(code, "yes"))
    assert server.bodies == [STUFFED]
    assert session.was_usable


REFUSALS = [
    # phase, code, what it means, whether the session can go on
    (P.MAIL, 421, Q.UNTRIED, False),
    (P.MAIL, 450, Q.UNTRIED, True),
    (P.MAIL, 550, Q.UNTRIED, True),
    (P.MAIL, 552, Q.UNTRIED, True),
    (P.MAIL, 354, Q.UNTRIED, False),
    (P.MAIL, 600, Q.UNTRIED, False),
    (P.MAIL, 120, Q.UNTRIED, False),
    (P.RCPT, 421, Q.UNTRIED, False),
    (P.RCPT, 450, Q.DEFERRED, True),
    (P.RCPT, 452, Q.DEFERRED, True),
    (P.RCPT, 499, Q.DEFERRED, True),
    (P.RCPT, 550, Q.REFUSED, True),
    (P.RCPT, 552, Q.DEFERRED, True),
    (P.RCPT, 556, Q.REFUSED, True),
    (P.RCPT, 599, Q.REFUSED, True),
    (P.RCPT, 354, Q.UNTRIED, False),
    (P.RCPT, 600, Q.UNTRIED, False),
    (P.DATA, 421, Q.UNTRIED, False),
    (P.DATA, 451, Q.DEFERRED, True),
    (P.DATA, 554, Q.REFUSED, True),
    (P.DATA, 552, Q.REFUSED, True),
    (P.DATA, 250, Q.UNTRIED, False),
    (P.DATA, 600, Q.UNTRIED, False),
    (P.FINAL_DOT, 421, Q.DEFERRED, False),
    (P.FINAL_DOT, 451, Q.DEFERRED, True),
    (P.FINAL_DOT, 550, Q.REFUSED, True),
    (P.FINAL_DOT, 552, Q.REFUSED, True),
    (P.FINAL_DOT, 354, Q.UNKNOWN, False),
    (P.FINAL_DOT, 600, Q.UNKNOWN, False),
]


@BOTH_WAYS
@pytest.mark.parametrize(("phase", "code", "result", "goes_on"), REFUSALS, ids=str)
def test_the_first_digit_and_the_phase_decide(phase, code, result, goes_on, pipelined):
    answers = {P.MAIL: "250 ok", P.RCPT: "250 ok", P.DATA: "354 go", P.FINAL_DOT: "250 ok"}
    answers[phase] = f"{code} 4.0.0 why"
    for follower in {P.MAIL: (P.RCPT, P.DATA), P.RCPT: (P.DATA,)}.get(phase, ()):
        answers[follower] = "503 5.5.1 bad sequence"
    outcome, _, session = one(script(*answers.values(), pipelined=pipelined))
    assert (outcome.result, outcome.phase, outcome.reply) == (result, phase, Reply(code, "4.0.0 why"))
    assert session.was_usable is goes_on


@BOTH_WAYS
@pytest.mark.parametrize(
    ("phase", "result"),
    [(P.MAIL, Q.UNTRIED), (P.RCPT, Q.UNTRIED), (P.DATA, Q.UNTRIED), (P.FINAL_DOT, Q.UNKNOWN)],
)
def test_a_lost_connection_leaves_doubt_only_after_the_final_dot(phase, result, pipelined):
    answers = {"mail": "250 ok", "rcpt": "250 ok", "data": "354 go", "dot": "250 ok"}
    answers[{P.MAIL: "mail", P.RCPT: "rcpt", P.DATA: "data", P.FINAL_DOT: "dot"}[phase]] = None
    outcome, _, session = one(script(**answers, pipelined=pipelined))
    assert (outcome.result, outcome.phase, outcome.reply) == (result, phase, None)
    assert outcome.why
    assert not session.was_usable


@BOTH_WAYS
@pytest.mark.parametrize(
    ("phase", "result"),
    [(P.MAIL, Q.UNTRIED), (P.RCPT, Q.UNTRIED), (P.DATA, Q.UNTRIED), (P.FINAL_DOT, Q.UNKNOWN)],
)
def test_silence_ends_at_the_deadline_of_its_phase(phase, result, pipelined):
    answers = {"mail": "250 ok", "rcpt": "250 ok", "data": "354 go", "dot": "250 ok"}
    name = {P.MAIL: "mail", P.RCPT: "rcpt", P.DATA: "data", P.FINAL_DOT: "dot"}[phase]
    answers[name] = None
    short = {"final_dot": 0.02, "octets_per_second": 1e9} if phase is P.FINAL_DOT else {name: 0.02}
    outcome, _, session = one(
        script(**answers, pipelined=pipelined).replace("DROP", "HANG"), deadlines=relay.Deadlines(**short)
    )
    assert (outcome.result, outcome.phase) == (result, phase)
    assert "no reply within 0.02" in outcome.why
    assert not session.was_usable


@pytest.mark.parametrize(
    ("phase", "minutes"), [(P.MAIL, 5), (P.RCPT, 5), (P.DATA, 2), (P.FINAL_DOT, 10)], ids=str
)
def test_no_deadline_is_below_the_minimum_of_the_standard(phase, minutes):
    assert relay.Deadlines().of(phase) >= minutes * 60


def test_a_large_body_lengthens_the_wait_after_it():
    assert relay.Deadlines().of(P.FINAL_DOT, size=4096 * 60) == 11 * 60


def test_a_deadline_is_for_the_whole_reply_however_often_an_octet_comes():
    drip = "\n".join(f"S~ 250-line {number}" for number in range(2000))
    outcome, _, _ = one(
        scripted_relay.hello() + f"C: MAIL\n{drip}\nHANG", deadlines=relay.Deadlines(mail=0.05)
    )
    assert outcome.result is Q.UNTRIED


# What follows from a refusal is nobody's verdict


def test_a_503_after_a_refused_mail_is_not_the_recipients():
    outcome, _, _ = one(
        script("451 4.3.0 later", "503 5.5.1 MAIL first", "503 5.5.1 MAIL first", pipelined=True)
    )
    assert outcome.result is Q.UNTRIED
    assert outcome.reply == Reply(451, "4.3.0 later")


def test_nothing_is_reset_when_mail_was_refused():
    _, server, _ = one(script("550 no", "503 no", "503 no", pipelined=True))
    assert server.rest == b""


@BOTH_WAYS
def test_a_refused_recipient_is_followed_by_exactly_one_reset_and_the_session_goes_on(pipelined):
    refused = script(rcpt="550 5.1.1 unknown", data="503 no recipient", pipelined=pipelined)
    accepted = script(pipelined=pipelined).partition("C: MAIL")
    text = refused + "\nC: RSET\nS: 250 ok\nC: MAIL" + accepted[2]
    outcomes, server, session = letters(text, marks=(yes, yes))
    assert [outcome.result for outcome in outcomes] == [Q.REFUSED, Q.ACCEPTED]
    assert server.lines.count("RSET") == 1
    assert session.was_usable


@BOTH_WAYS
def test_a_hung_reset_masks_no_verdict_and_blames_not_the_next_letter(pipelined):
    refused = script(rcpt="550 5.1.1 unknown", data="503 no recipient", pipelined=pipelined)
    outcomes, server, session = letters(
        refused + "\nC: RSET\nHANG", marks=(yes, yes), deadlines=relay.Deadlines(rset=0.02)
    )
    assert [outcome.result for outcome in outcomes] == [Q.REFUSED, Q.UNTRIED]
    assert b"Subject" not in server.rest
    assert not session.was_usable


@pytest.mark.parametrize("answer", ["550 no", "421 bye", "354 what"])
def test_a_refused_reset_ends_the_session(answer):
    refused = script(rcpt="550 5.1.1 unknown", data="503 no recipient", pipelined=True)
    outcomes, _, session = letters(refused + f"\nC: RSET\nS: {answer}\nHANG", marks=(yes, yes))
    assert [outcome.result for outcome in outcomes] == [Q.REFUSED, Q.UNTRIED]
    assert not session.was_usable


@pytest.mark.parametrize("answer", ["554 no valid recipients", "250 queued for nobody"])
def test_data_accepted_without_a_recipient_gets_a_lone_dot(answer):
    text = scripted_relay.hello("PIPELINING") + (
        "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 550 5.1.1 unknown\nS: 354 go\n"
        f"BODY\nS: {answer}\nC: RSET\nS: 250 ok\n"
    )
    accepted = script(pipelined=True).partition("C: MAIL")
    outcomes, server, _ = letters(text + "C: MAIL" + accepted[2], marks=(yes, yes))
    assert [(outcome.result, outcome.phase) for outcome in outcomes] == [
        (Q.REFUSED, P.RCPT),
        (Q.ACCEPTED, P.FINAL_DOT),
    ]
    assert server.bodies == [b".\r\n", STUFFED]


def test_an_accepted_recipient_never_gets_a_lone_dot():
    text = scripted_relay.hello("PIPELINING") + (
        "C: MAIL\nC: RCPT\nC: DATA\nS: 550 no\nS: 250 yes\nS: 354 go\nHANG"
    )
    outcome, server, session = one(text)
    assert (outcome.result, outcome.phase) == (Q.UNTRIED, P.MAIL)
    assert server.rest == b""
    assert not session.was_usable


@pytest.mark.parametrize("end", ["S: 421 4.3.2 shutting down", "DROP", "S: rubbish"])
def test_a_verdict_once_read_stays_whatever_breaks_after_it(end):
    text = (
        scripted_relay.hello("PIPELINING") + f"C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 550 5.1.1 no\n{end}"
    )
    outcome, _, session = one(text)
    assert (outcome.result, outcome.phase, outcome.reply) == (Q.REFUSED, P.RCPT, Reply(550, "5.1.1 no"))
    assert not session.was_usable


# The mark


@BOTH_WAYS
def test_the_final_dot_waits_for_the_mark(pipelined):
    async def main():
        text = script(pipelined=pipelined).replace("BODY", "PART\nC: .")
        async with scripted_relay.serve(text) as server:
            server.part = b"\r\nend\r\n"
            session = await relay.open(account(server.port))
            marked = asyncio.Event()
            seen = []

            async def mark():
                seen.append(list(server.lines))
                await marked.wait()
                seen.append(list(server.lines))
                return True

            sending = asyncio.ensure_future(session.transact(LETTER, mark))
            await scripted_relay.until(lambda: seen)
            for _ in range(100):  # time enough for a dot that does not wait
                await asyncio.sleep(0)
            marked.set()
            outcome = await sending
            session.close()
            return outcome, seen

    outcome, seen = asyncio.run(main())
    assert outcome.result is Q.ACCEPTED
    assert not any("." in lines for lines in seen)


@BOTH_WAYS
def test_a_refused_mark_closes_the_connection_before_the_final_dot(pipelined):
    text = script(pipelined=pipelined).partition("BODY")[0] + "HANG"
    outcome, server, session = one(text, marks=(no,))
    assert (outcome.result, outcome.phase) == (Q.WITHDRAWN, P.BODY)
    assert server.rest == STUFFED.removesuffix(b".\r\n")
    assert not session.was_usable


@pytest.mark.parametrize(
    ("words", "result", "code"),
    [
        ("S: 421 4.3.2 shutting down", Q.UNTRIED, 421),
        ("S: 552 5.3.4 too big", Q.REFUSED, 552),
        ("S: 451 4.3.0 disk full", Q.DEFERRED, 451),
        ("S: 250 queued", Q.UNTRIED, 250),
        ("DROP", Q.UNTRIED, None),
        ("S: rubbish", Q.UNTRIED, None),
    ],
)
def test_what_happens_during_the_mark_leaves_no_doubt(words, result, code):
    async def main():
        text = script(pipelined=True).partition("BODY")[0] + f"PART\nWAIT\n{words}"
        async with scripted_relay.serve(text) as server:
            server.part = b"\r\nend\r\n"
            session = await relay.open(account(server.port))

            async def mark():
                server.go.set()
                await scripted_relay.until(lambda: not session.usable)
                return True

            return await session.transact(LETTER, mark), server

    outcome, server = asyncio.run(main())
    assert (outcome.result, outcome.phase) == (result, P.BODY)
    assert (outcome.reply.code if outcome.reply else None) == code
    assert server.rest == b""


def test_a_mark_that_fails_closes_the_connection_and_is_heard():
    async def fail():
        raise LookupError("no database")

    async def main():
        async with scripted_relay.serve(script(pipelined=True).partition("BODY")[0] + "HANG") as server:
            session = await relay.open(account(server.port))
            with pytest.raises(LookupError):
                await session.transact(LETTER, fail)
            assert not session.usable
            return server

    assert not asyncio.run(main()).rest.endswith(b"\r\n.\r\n")


@pytest.mark.parametrize("stop", ["C: MAIL", "C: DATA", "BODY"])
def test_a_cancelled_transaction_closes_the_connection(stop):
    async def main():
        head, _, _ = script(pipelined=True).partition(stop)
        async with scripted_relay.serve(head + stop + "\nWAIT\nHANG") as server:
            session = await relay.open(account(server.port))
            sending = asyncio.ensure_future(session.transact(LETTER, yes))
            await scripted_relay.until(
                lambda: server.bodies or stop[3:] in [line[:4] for line in server.lines]
            )
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            server.go.set()
            assert not session.usable

    asyncio.run(main())


# Replies out of protocol


@pytest.mark.parametrize(
    "extra", ["S: 250 once more", "S: 421 bye", "S= 25", "S: \x00\x01\x02", "S: 550 no such user here"]
)
def test_a_word_too_many_ends_the_session_and_shifts_no_reply(extra):
    outcomes, server, session = letters(
        script(pipelined=True) + f"\n{extra}\nHANG", marks=(yes, yes), letter=LETTER
    )
    assert [outcome.result for outcome in outcomes] == [Q.ACCEPTED, Q.UNTRIED]
    assert (outcomes[1].phase, outcomes[1].reply) == (P.MAIL, None)
    assert len(server.bodies) == 1
    assert not session.was_usable


def test_replies_in_advance_are_not_taken_for_those_to_come():
    outcome, server, _ = one(scripted_relay.hello() + "C: MAIL\nS: 250 ok\nS: 250 ok\nS: 354 go\nHANG")
    assert outcome.result is Q.UNTRIED
    assert not server.bodies


def test_a_missing_reply_makes_nobody_accepted():
    text = scripted_relay.hello("PIPELINING") + "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 354 go\nHANG"
    outcome, _, session = one(text)
    assert (outcome.result, outcome.phase) == (Q.UNTRIED, P.RCPT)
    assert not session.was_usable


@pytest.mark.parametrize(
    "nonsense",
    [
        pytest.param("S: 250 " + "x" * 8192, id="a line of 8 KiB"),
        pytest.param("S= 250 " + "x" * 8192, id="a line without end"),
        pytest.param("\n".join(["S: 250-" + "x" * 100] * 1000), id="endless continuation"),
        pytest.param("S: \x80\xff\x00\x01binary", id="binary"),
        pytest.param("S: HTTP/1.1 400 Bad Request", id="another protocol"),
        pytest.param("S: 2500 ok", id="four digits"),
        pytest.param("S: 25", id="two digits"),
        pytest.param("S: 250-ok\nS: 550 no", id="two codes"),
        pytest.param("S: ", id="an empty line"),
    ],
)
@pytest.mark.parametrize("phase", [P.MAIL, P.FINAL_DOT])
def test_nonsense_closes_the_connection(nonsense, phase):
    if phase is P.MAIL:
        text = scripted_relay.hello() + f"C: MAIL\n{nonsense}\nHANG"
    else:
        text = script(pipelined=True).partition("S: 250 queued")[0] + f"{nonsense}\nHANG"
    outcome, _, session = one(text)
    assert (outcome.result, outcome.phase) == (Q.UNKNOWN if phase is P.FINAL_DOT else Q.UNTRIED, phase)
    assert not session.was_usable


def test_replies_of_many_lines_in_any_segments_are_read_whole():
    text = scripted_relay.hello("PIPELINING") + (
        "C: MAIL\nC: RCPT\nC: DATA\nS~ 250-2.1.0 one\nS~ 250 2.1.0 two\nS: 250\nS= 35\nWAIT\n"
        "S= 4 go\nS: \nBODY\nS: 250-2.0.0 queued\nS: 250-\nS: 250 2.0.0 as 17"
    )

    async def main():
        async with scripted_relay.serve(text) as server:
            server.go.set()
            session = await relay.open(account(server.port))
            outcome = await session.transact(LETTER, yes)
            session.close()
            return outcome

    assert asyncio.run(main()).reply == Reply(250, "2.0.0 queued\n\n2.0.0 as 17")


# The life of a session


@BOTH_WAYS
def test_a_session_carries_many_letters_without_a_reset(pipelined):
    head, _, tail = script(pipelined=pipelined).partition("C: MAIL")
    outcomes, server, _ = letters(head + ("C: MAIL" + tail + "\n") * 5, marks=(yes,) * 5)
    assert [outcome.result for outcome in outcomes] == [Q.ACCEPTED] * 5
    assert server.bodies == [STUFFED] * 5
    assert "RSET" not in server.lines


@pytest.mark.parametrize("words", ["S: 421 4.4.2 timeout exceeded", ""])
def test_a_session_closed_while_idle_is_noticed_and_its_next_letter_untried(words):
    async def main():
        async with scripted_relay.serve(script(pipelined=True) + f"\nWAIT\n{words}\nDROP") as server:
            session = await relay.open(account(server.port))
            await session.transact(LETTER, yes)
            assert session.usable
            server.go.set()
            await scripted_relay.until(lambda: not session.usable)
            return await session.transact(LETTER, yes)

    outcome = asyncio.run(main())
    assert (outcome.result, outcome.phase, outcome.reply) == (Q.UNTRIED, P.MAIL, None)


@pytest.mark.parametrize(
    "end", ["S: 221 bye\nDROP", "S: 221 bye", "DROP", "S: 500 what", "HANG", "S: rubbish"]
)
def test_quit_never_fails(end):
    async def main():
        async with scripted_relay.serve(script(pipelined=True) + f"\nC: QUIT\n{end}") as server:
            session = await relay.open(account(server.port, deadlines=relay.Deadlines(quit=0.05)))
            outcome = await session.transact(LETTER, yes)
            await session.quit()
            await session.quit()
            assert not session.usable
            return outcome

    assert asyncio.run(main()).result is Q.ACCEPTED


def test_a_session_refuses_a_second_transaction_at_the_same_time():
    async def main():
        async with scripted_relay.serve(scripted_relay.hello() + "HANG") as server:
            session = await relay.open(account(server.port))
            first = asyncio.ensure_future(session.transact(LETTER, yes))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError):
                await session.transact(LETTER, yes)
            session.close()
            return await first

    assert asyncio.run(main()).result is Q.UNTRIED
