"""The IMAP mailbox against a script, for what no real server can be made to do."""

import asyncio
import contextlib

import pytest

from mailbound.mailbox import Item, SessionError, Trouble, imap
from mailbound.mailbox.imap import replies
from scripted_imap import DRIP, HANG_UP, SAY_NOTHING, ScriptedImap, capable, mails
from servers.authority import Authority

NO_TLS = {"host": "127.0.0.1", "username": "bounces", "password": "secret", "tls": "insecure"}
ONE, TWO = Item(1, "7/1", 0), Item(2, "7/2", 0)
LOGIN = 'LOGIN "bounces" "secret"'


@contextlib.asynccontextmanager
async def session(port, **options):
    """A session that is dropped at the end, unless it was closed before."""
    mailbox = await imap.open(**NO_TLS | {"port": port} | options)
    try:
        yield mailbox
    finally:
        await mailbox.close(commit=False)


async def fetch_all(mailbox):
    return [fetched async for fetched in mailbox.fetch(await mailbox.list())]


def run_script(script=None, *, greeting=b"* OK ready\r\n", capabilities=None, **options):
    """Fetch all from a scripted server and delete it; return what was fetched, what was refused, what it heard."""

    async def run():
        async with (
            ScriptedImap(script, greeting=greeting, capabilities=capabilities) as server,
            session(server.port, **options) as mailbox,
        ):
            fetched = await fetch_all(mailbox)
            if options.get("after_storing") != "keep":
                await mailbox.delete([each.item for each in fetched])
            return fetched, mailbox.refused, server.heard

    return asyncio.run(run())


async def live(port, **options):
    """Go through everything that a session is for."""
    async with session(port, **options) as mailbox:
        fetched = await fetch_all(mailbox)
        await mailbox.delete([each.item for each in fetched])
        await mailbox.watch(60.0)


def trouble(script=None, *, greeting=b"* OK ready\r\n", **options):
    """Return the trouble that a scripted server makes, its words, and what it heard."""

    async def run():
        async with ScriptedImap(script, greeting=greeting) as server:
            with pytest.raises(SessionError) as raised:
                await live(server.port, **options)
            return raised.value.trouble, str(raised.value), server.heard

    return asyncio.run(run())


# A session that goes well


def test_mails_are_listed_sized_fetched_and_expunged_by_their_uids():
    fetched, refused, heard = run_script()
    assert [each.content for each in fetched] == [b"A: 1\r\n\r\none\r\n", b"A: 2\r\n\r\ntwo\r\n"]
    assert [(each.uid, each.item.size_octets, each.truncated) for each in fetched] == [
        ("7/1", 13, False),
        ("7/2", 13, False),
    ]
    assert refused == []
    assert heard == [
        "CAPABILITY",
        LOGIN,
        "CAPABILITY",
        'SELECT "INBOX"',
        "UID SEARCH ALL",
        "UID FETCH 1:2 (UID RFC822.SIZE)",
        "UID FETCH 1:2 (UID BODY.PEEK[]<0.10485761>)",
        r"UID STORE 1:2 +FLAGS.SILENT (\Deleted)",
        "UID EXPUNGE 1:2",
    ]


@pytest.mark.parametrize(
    ("after", "capabilities", "expected"),
    [
        pytest.param("delete", ["UIDPLUS"], ["STORE", "EXPUNGE"], id="delete"),
        pytest.param("delete", [], ["STORE"], id="delete without UIDPLUS only marks"),
        pytest.param("archive", ["MOVE"], ["MOVE"], id="archive by MOVE"),
        pytest.param("archive", ["UIDPLUS"], ["COPY", "STORE", "EXPUNGE"], id="archive by COPY"),
        pytest.param("archive", [], ["COPY", "STORE"], id="archive by COPY, without UIDPLUS"),
        pytest.param("keep", [], [], id="keep"),
    ],
)
def test_mails_go_by_what_the_server_can_do_and_never_by_a_bare_expunge(after, capabilities, expected):
    _, _, heard = run_script(capabilities=capabilities, after_storing=after, archive_folder="Read")
    verbs = [command.split()[1] for command in heard if command.startswith("UID ")]
    assert verbs == ["SEARCH", "FETCH", "FETCH", *expected]
    assert not any(command.startswith("EXPUNGE") for command in heard)


def test_a_mail_that_can_only_be_marked_is_not_found_again_and_the_operator_is_told():
    async def run():
        async with ScriptedImap(capabilities=["IDLE"]) as server, session(server.port) as mailbox:
            await mailbox.list()
            return server.heard[-1], mailbox.doubts

    heard, doubts = asyncio.run(run())
    assert heard == "UID SEARCH UNDELETED"
    assert len(doubts) == 1
    assert "UIDPLUS" in doubts[0]


def test_who_keeps_everything_only_looks():
    _, _, heard = run_script(after_storing="keep", folder="Bounces")
    assert 'EXAMINE "Bounces"' in heard


def test_an_archive_that_is_not_there_is_made():
    script = {"UID MOVE": [b"TAG NO [TRYCREATE] no such folder\r\n", b"TAG OK moved\r\n"]}
    _, refused, heard = run_script(script, after_storing="archive", archive_folder="Größe & Co")
    archive = '"Gr&APYA3w-e &- Co"'
    assert heard[-3:] == [f"UID MOVE 1:2 {archive}", f"CREATE {archive}", f"UID MOVE 1:2 {archive}"]
    assert refused == []


@pytest.mark.parametrize("verb", ["COPY", "MOVE"])
def test_an_archive_that_is_full_takes_nothing_away(verb):
    script = {f"UID {verb}": b"TAG NO [OVERQUOTA] full\r\n"}
    capabilities = ["UIDPLUS", "MOVE"] if verb == "MOVE" else ["UIDPLUS"]
    _, refused, heard = run_script(
        script, capabilities=capabilities, after_storing="archive", archive_folder="Read"
    )
    assert [(item.uid, why) for item, why in refused] == [
        ("7/1", "NO [OVERQUOTA] full"),
        ("7/2", "NO [OVERQUOTA] full"),
    ]
    assert heard[-1].startswith(f"UID {verb}"), "what could not be copied is not deleted"


def test_a_preauthenticated_session_needs_no_login():
    _, _, heard = run_script(greeting=b"* PREAUTH welcome\r\n")
    assert heard[:2] == ["CAPABILITY", 'SELECT "INBOX"']


# Logging in


def test_plain_is_used_where_it_is_offered_and_takes_any_character():
    script = {"AUTHENTICATE": b"+ \r\n", "AGLD": b"TAG OK in\r\n"}
    _, _, heard = run_script(script | {"A": b"TAG OK in\r\n"}, capabilities=["AUTH=PLAIN"], password="gehëim")
    assert heard[1:3] == ["AUTHENTICATE PLAIN", "AGJvdW5jZXMAZ2Vow6tpbQ=="]


def test_a_token_is_sent_when_the_server_asks_for_it():
    script = {"AUTHENTICATE": b"+ \r\n", "dXNl": b"TAG OK in\r\n"}
    _, _, heard = run_script(script, authentication="xoauth2", password="t" * 10)
    assert heard[1:3] == ["AUTHENTICATE XOAUTH2", "dXNlcj1ib3VuY2VzAWF1dGg9QmVhcmVyIHR0dHR0dHR0dHQBAQ=="]


def test_a_token_that_is_refused_by_a_challenge_is_bad_credentials():
    script = {
        "AUTHENTICATE": b"+ \r\n",
        "dXNl": b"+ eyJzdGF0dXMiOiI0MDAifQ==\r\n",
        "": b"TAG NO [AUTHENTICATIONFAILED] invalid token\r\n",
        "CAPABILITY": capable(),
    }
    found, why, heard = trouble(script, authentication="xoauth2")
    assert found is Trouble.CREDENTIALS
    assert "invalid token" in why
    assert heard[-1] == ""


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param(b"NO [AUTHENTICATIONFAILED] wrong", Trouble.CREDENTIALS, id="credentials"),
        pytest.param(b"NO wrong", Trouble.CREDENTIALS, id="unexplained"),
        pytest.param(b"NO [UNAVAILABLE] later", Trouble.TEMPORARY, id="unavailable"),
        pytest.param(b"NO [INUSE] locked", Trouble.IN_USE, id="in use"),
        pytest.param(b"NO [LIMIT] too many", Trouble.TEMPORARY, id="too many connections"),
        pytest.param(b"NO [CONTACTADMIN] call", Trouble.PERMANENT, id="contact the administrator"),
        pytest.param(b"NO [PRIVACYREQUIRED] TLS", Trouble.TLS, id="no TLS"),
        pytest.param(b"NO [EXPIRED] old", Trouble.CREDENTIALS, id="expired"),
        pytest.param(b"NO \xe9\xff not UTF-8", Trouble.CREDENTIALS, id="not UTF-8"),
        pytest.param(b"BAD what", Trouble.PROTOCOL, id="not understood"),
    ],
)
def test_a_refused_login_says_what_trouble_it_is(reply, expected):
    found, _, heard = trouble({"LOGIN": b"TAG %b\r\n" % reply})
    assert found is expected
    assert heard == ["CAPABILITY", LOGIN], "one try, and no goodbye"


def test_where_no_password_is_taken_none_is_sent():
    found, _, heard = trouble({"CAPABILITY": capable("LOGINDISABLED")})
    assert (found, heard) == (Trouble.CREDENTIALS, ["CAPABILITY"])


@pytest.mark.parametrize("name", ["username", "password"])
@pytest.mark.parametrize("value", ["bob\r\nA1 DELETE INBOX", "bob\n", "bob\0", "bob\x7f"])
def test_a_control_character_is_never_sent(name, value):
    found, _, heard = trouble(**{name: value})
    assert (found, heard) == (Trouble.CREDENTIALS, [])


def test_quotes_and_backslashes_are_sent_as_they_are_meant():
    _, _, heard = run_script(username='a"b', password="c\\d")
    assert heard[1] == r'LOGIN "a\"b" "c\\d"'


def test_the_password_is_not_shown():
    async def run():
        async with ScriptedImap() as server, session(server.port, password="hunter2") as mailbox:
            return repr(vars(mailbox))

    assert "hunter2" not in asyncio.run(run())


def test_a_certificate_that_does_not_verify_ends_the_session_before_the_login(tmp_path):
    async def run():
        async with ScriptedImap(greeting=HANG_UP) as server:
            with pytest.raises(SessionError) as raised:
                await imap.open(
                    **NO_TLS | {"tls": "implicit"},
                    port=server.port,
                    ca_file=Authority(tmp_path / "ca", ["x.test"]).ca,
                )
            return raised.value.trouble, server.heard

    found, heard = asyncio.run(run())
    assert (found in {Trouble.TLS, Trouble.NETWORK}, heard) == (True, [])


# The folder


@pytest.mark.parametrize(
    ("reply", "expected", "words"),
    [
        pytest.param(b"TAG NO no such folder\r\n", Trouble.PERMANENT, "folder INBOX", id="refused"),
        pytest.param(b"TAG NO [NONEXISTENT] none\r\n", Trouble.PERMANENT, "none", id="missing"),
        pytest.param(b"TAG NO [UNAVAILABLE] later\r\n", Trouble.TEMPORARY, "later", id="unavailable"),
        pytest.param(b"TAG NO [INUSE] locked\r\n", Trouble.IN_USE, "locked", id="in use"),
        pytest.param(b"* 0 EXISTS\r\nTAG OK done\r\n", Trouble.PROTOCOL, "UIDVALIDITY", id="no UIDVALIDITY"),
        pytest.param(
            b"* OK [UIDVALIDITY 7]\r\nTAG OK [READ-ONLY] done\r\n",
            Trouble.PERMANENT,
            'after_storing = "keep"',
            id="read-only",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_told_of_in_words(reply, expected, words):
    found, why, _ = trouble({"SELECT": reply})
    assert found is expected
    assert words in why


# Fetching


def test_answers_come_in_any_order_with_others_between_them():
    body = (
        b"* 9 EXISTS\r\n* 3 EXPUNGE\r\n* 2 FETCH (FLAGS (\\Seen) UID 2)\r\n"
        b"* 2 FETCH (BODY[]<0> {3}\r\ntwo UID 2)\r\n* OK still here\r\n"
        b"* 8 FETCH (FLAGS (\\Recent))\r\n* 1 FETCH (UID 1 BODY[]<0> {3}\r\none)\r\nTAG OK done\r\n"
    )
    fetched, refused, _ = run_script({"UID FETCH 1:2 (UID BODY": body})
    assert ([each.content for each in fetched], refused) == ([b"one", b"two"], [])


@pytest.mark.parametrize(
    ("sent", "content"),
    [
        pytest.param(b'""', b"", id="empty, quoted"),
        pytest.param(b'"a\\"b\\\\"', b'a"b\\', id="quoted"),
        pytest.param(b"{0}\r\n", b"", id="empty literal"),
        pytest.param(b"{9}\r\n)\r\nA OK \r\n", b")\r\nA OK \r\n"[:9], id="what looks like a reply"),
        pytest.param(b"{6}\r\n((\xff\x00\r\n", b"((\xff\x00\r\n", id="all octets"),
    ],
)
def test_a_mail_comes_octet_by_octet_as_it_lies_there(sent, content):
    script = mails(_1=b"x") | {
        "UID FETCH 1 (UID BODY": b"* 1 FETCH (UID 1 BODY[]<0> %b)\r\nTAG OK\r\n" % sent
    }
    if sent.startswith(b"{9}"):
        script["UID FETCH 1 (UID BODY"] = b"* 1 FETCH (UID 1 BODY[]<0> {9}\r\n" + content + b")\r\nTAG OK\r\n"
    fetched, _, _ = run_script(script)
    assert [each.content for each in fetched] == [content]


def test_many_lines_in_one_piece_are_no_trouble():
    """aioimaplib calls itself for each line that came together with others."""
    script = {
        "UID SEARCH": b"* 1 EXPUNGE\r\n" * 5000 + b"* SEARCH 1 2\r\nTAG OK done\r\n",
        **mails(_1=b"x\r\n" * 50_000, _2=b"y\r\n"),
        "UID STORE": b"* 1 FETCH (FLAGS ())\r\n" * 3000 + b"TAG OK done\r\n",
    }
    fetched, _, _ = run_script(script)
    assert len(fetched[0].content) == 150_000


def test_of_a_large_mail_only_the_beginning_is_fetched_by_itself():
    large = b"A: 1\r\n\r\n" + b"0123456789\r\n" * 100
    script = mails(_1=large, _2=b"A: 2\r\n\r\n") | {
        "UID FETCH 1 (UID BODY": b"* 1 FETCH (UID 1 BODY[]<0> {201}\r\n%b)\r\nTAG OK\r\n" % large[:201],
        "UID FETCH 2 (UID BODY": b"* 2 FETCH (UID 2 BODY[]<0> {8}\r\nA: 2\r\n\r\n)\r\nTAG OK\r\n",
    }
    fetched, _, heard = run_script(script, max_size_octets=200)
    assert [each.truncated for each in fetched] == [True, False]
    assert fetched[0].content == large[: 8 + 16 * 12]
    assert fetched[0].item.size_octets == len(large)
    assert "UID FETCH 1 (UID BODY.PEEK[]<0.201>)" in heard


def test_what_the_server_refuses_together_it_is_asked_for_singly():
    script = {
        "UID FETCH 1:2 (UID BODY": b"TAG NO [SERVERBUG] one of them is broken\r\n",
        "UID FETCH 1 (UID BODY": b"TAG NO [SERVERBUG] broken\r\n",
        "UID FETCH 2 (UID BODY": b"* 2 FETCH (UID 2 BODY[]<0> {3}\r\ntwo)\r\nTAG OK\r\n",
    }
    fetched, refused, _ = run_script(script)
    assert [each.uid for each in fetched] == ["7/2"]
    assert [(item.uid, why) for item, why in refused] == [("7/1", "NO [SERVERBUG] broken")]


def test_a_mail_without_content_is_refused_and_one_that_went_is_left_out():
    script = {"UID FETCH 1:2 (UID BODY": b"* 1 FETCH (UID 1 BODY[]<0> NIL)\r\nTAG OK\r\n"}
    fetched, refused, heard = run_script(script)
    assert (fetched, [item.uid for item, _ in refused]) == ([], ["7/1"])
    assert heard[-1].startswith("UID FETCH"), "nothing is deleted"


# Waiting


def test_news_ends_the_waiting_and_done_is_answered_before_anything_else():
    async def run():
        async with ScriptedImap() as server, session(server.port) as mailbox:
            await mailbox.list()
            waiting = asyncio.create_task(mailbox.watch(60.0))
            await server.hears("IDLE")
            server.push(b"* OK still here\r\n* 2 EXPUNGE\r\n* 1 FETCH (FLAGS (\\Seen))\r\n* 3 EXISTS\r\n")
            await waiting
            await mailbox.list()
            return server.heard[-3:]

    assert asyncio.run(run()) == ["IDLE", "DONE", "UID SEARCH ALL"]


def test_news_that_came_before_the_waiting_is_not_overheard():
    """A server that told of a mail in the middle of another command does not tell again."""

    async def run():
        body = mails(_1=b"x")["UID FETCH 1 (UID BODY"]
        script = mails(_1=b"x") | {"UID FETCH 1 (UID BODY": b"* 2 EXISTS\r\n" + body}
        async with ScriptedImap(script) as server, session(server.port) as mailbox:
            await fetch_all(mailbox)
            await mailbox.watch(60.0)
            return server.heard

    assert "IDLE" not in asyncio.run(run())


def test_idle_is_given_again_before_the_server_takes_us_for_dead():
    async def run():
        async with ScriptedImap() as server, session(server.port, idle_seconds=0.01) as mailbox:
            await mailbox.list()
            waiting = asyncio.create_task(mailbox.watch(60.0))
            await server.hears("IDLE", times=3)
            server.push(b"* 3 EXISTS\r\n")
            await waiting
            return server.heard

    heard = asyncio.run(run())
    assert heard.count("DONE") == heard.count("IDLE") >= 3


def test_without_news_the_waiting_ends_when_it_is_time_to_look():
    async def run():
        async with ScriptedImap() as server, session(server.port) as mailbox:
            await mailbox.list()
            await mailbox.watch(0.01)
            return server.heard[-2:]

    assert asyncio.run(run()) == ["IDLE", "DONE"]


def test_without_idle_a_session_does_not_last():
    async def run():
        async with ScriptedImap(capabilities=["UIDPLUS"]) as server, session(server.port) as mailbox:
            return mailbox.watch, mailbox.doubts

    watch, doubts = asyncio.run(run())
    assert watch is None
    assert "IDLE" in doubts[0]


@pytest.mark.parametrize("refusal", [b"TAG NO not now\r\n", b"TAG BAD what?\r\n"], ids=["NO", "BAD"])
def test_where_idle_is_refused_there_is_nothing_to_wait_for(refusal):
    async def run():
        async with ScriptedImap({"IDLE": refusal}) as server, session(server.port) as mailbox:
            await mailbox.list()
            await mailbox.watch(60.0)
            return mailbox.watch, mailbox.doubts, [item.uid for item in await mailbox.list()]

    watch, doubts, uids = asyncio.run(run())
    assert watch is None
    assert "refuses IDLE" in doubts[0]
    assert uids == ["7/1", "7/2"], "the session goes on"


@pytest.mark.parametrize(
    "script",
    [
        pytest.param({"IDLE": SAY_NOTHING}, id="no answer to IDLE"),
        pytest.param({"IDLE": (b"+ idling\r\n", HANG_UP)}, id="hangs up while idle"),
        pytest.param({"IDLE": (b"+ idling\r\n* BYE idle too long\r\n", SAY_NOTHING)}, id="BYE while idle"),
        pytest.param({"IDLE": b"+ idling\r\n* 3 EXISTS\r\n", "DONE": SAY_NOTHING}, id="no answer to DONE"),
        pytest.param({"IDLE": b"+ idling\r\n* 3 EXISTS\r\n", "DONE": HANG_UP}, id="hangs up at DONE"),
    ],
)
def test_a_server_that_is_gone_while_idle_is_noticed(script):
    assert trouble(script, timeout_seconds=0.3)[0].passing


# Servers that do not behave

PHASES = ["CAPABILITY", "LOGIN", "SELECT", "UID SEARCH", "UID FETCH", "UID FETCH 1:2 (UID BODY", "UID STORE"]
PHASES += ["UID EXPUNGE"]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    ("deed", "expected"),
    [
        pytest.param(HANG_UP, Trouble.NETWORK, id="hangs up"),
        pytest.param(SAY_NOTHING, Trouble.NETWORK, id="says nothing"),
        pytest.param(DRIP, Trouble.NETWORK, id="drips"),
        pytest.param(b"* BYE shutting down\r\n", Trouble.NETWORK, id="BYE"),
        pytest.param(b"* BYE [UNAVAILABLE] later\r\n", Trouble.TEMPORARY, id="BYE, and why"),
        pytest.param(b"XYZ OK done\r\n", Trouble.PROTOCOL, id="another tag"),
        pytest.param(b"TAG OK\r\nTAG OK\r\n", None, id="twice"),
        pytest.param(b"TAG BAD what?\r\n", Trouble.PROTOCOL, id="BAD"),
        pytest.param(b"* \xff\xfe \xff\r\n", None, id="not UTF-8"),
        pytest.param(
            b"* 1 FETCH (UID 1 BODY[] {99999999999}\r\nx", Trouble.NETWORK, id="a literal that stops"
        ),
    ],
)
def test_whatever_a_server_does_in_whatever_phase_ends_the_session(phase, deed, expected):
    found, _, heard = trouble({phase: deed}, timeout_seconds=0.3)
    assert "LOGOUT" not in heard
    assert "EXPUNGE" not in heard
    assert found is expected or expected is None


def test_an_endless_reply_is_cut_off():
    async def flood():
        script = {"UID SEARCH": b"* SEARCH " + b"1 " * 40_000_000}
        async with ScriptedImap(script) as server:
            with pytest.raises(SessionError) as raised:
                await live(server.port)
            return raised.value.trouble

    assert asyncio.run(flood()) is Trouble.PROTOCOL


@pytest.mark.parametrize(
    ("greeting", "expected"),
    [
        pytest.param(b"* BYE too many connections\r\n", Trouble.NETWORK, id="BYE"),
        pytest.param(b"* BYE [UNAVAILABLE] later\r\n", Trouble.TEMPORARY, id="BYE, and why"),
        pytest.param(b"+OK POP3\r\n", Trouble.PROTOCOL, id="a POP3 server"),
        pytest.param(HANG_UP, Trouble.NETWORK, id="hangs up"),
        pytest.param(SAY_NOTHING, Trouble.NETWORK, id="silent"),
        pytest.param(DRIP, Trouble.NETWORK, id="dripping"),
    ],
)
def test_a_greeting_that_is_none_is_trouble(greeting, expected):
    assert trouble(greeting=greeting, timeout_seconds=0.3)[0] is expected


def test_a_server_that_is_not_there_is_network_trouble_and_told_in_words():
    async def run():
        async with ScriptedImap() as server:
            port = server.port
        with pytest.raises(SessionError) as raised:
            await imap.open(**NO_TLS, port=port)
        return raised.value

    error = asyncio.run(run())
    assert (error.trouble, str(error)) == (Trouble.NETWORK, "Connection refused")


def test_after_trouble_the_session_is_over():
    async def run():
        async with (
            ScriptedImap({"UID SEARCH": b"TAG NO later\r\n"}) as server,
            session(server.port) as mailbox,
        ):
            for _ in range(2):
                with pytest.raises(SessionError):
                    await mailbox.list()
            await mailbox.close(commit=True)
            return server.heard

    assert asyncio.run(run()).count("UID SEARCH ALL") == 1


@pytest.mark.parametrize("where", ["LOGIN", "UID SEARCH", "IDLE"])
def test_a_cancelled_session_ends_at_once_without_goodbye(where):
    async def run():
        async with ScriptedImap({where: SAY_NOTHING}) as server:

            async def read():
                async with session(server.port) as mailbox:
                    await mailbox.list()
                    await mailbox.watch(60.0)

            reading = asyncio.create_task(read())
            await server.hears(where)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            return server  # which waits for the end of the session

    assert "LOGOUT" not in asyncio.run(run()).heard


def test_a_session_that_ended_well_says_goodbye():
    async def run():
        async with ScriptedImap() as server, session(server.port) as mailbox:
            await mailbox.close(commit=True)
            return server.heard[-1]

    assert asyncio.run(run()) == "LOGOUT"


# Words


@pytest.mark.parametrize(
    ("numbers", "written"),
    [([1], "1"), ([3, 1, 2, 7], "1:3,7"), ([5, 5], "5"), ([1, 3, 5], "1,3,5"), ([], "")],
)
def test_a_set_names_these_uids_and_no_other(numbers, written):
    assert replies.uid_set(numbers) == written


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("INBOX", '"INBOX"'),
        ("a&b", '"a&-b"'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("~peter/mail/台北/日本語", '"~peter/mail/&U,BTFw-/&ZeVnLIqe-"'),  # the example of RFC 3501 §5.1.3
    ],
)
def test_the_name_of_a_folder_is_sent_in_modified_utf7(name, sent):
    assert replies.folder(name) == sent
