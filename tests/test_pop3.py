"""The POP3 mailbox, against the simulator and, for what no real server does, against a script."""

import asyncio
import contextlib
import hashlib

import pytest

from mailbound.mailbox import HEAD_OCTETS, Item, SessionError, Trouble, pop3
from mailbound.simulator import Simulator
from scripted_pop3 import DRIP, HANG_UP, SAY_NOTHING, ScriptedPop3
from servers.authority import Authority

NO_TLS = {"host": "127.0.0.1", "username": "bounces", "password": "secret", "tls": "insecure"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls") / "ca", ["pop.test"])


@pytest.fixture(scope="module")
def other_authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls") / "ca", ["pop.test"])


@contextlib.asynccontextmanager
async def session(server_port, **options):
    """A session that is dropped at the end, unless it was closed before."""
    mailbox = await pop3.open(**NO_TLS | {"port": server_port} | options)
    try:
        yield mailbox
    finally:
        await mailbox.close(commit=False)


async def fetch_all(mailbox):
    return [fetched async for fetched in mailbox.fetch(await mailbox.list())]


def run_script(script=None, *, greeting=b"+OK ready\r\n", **options):
    """Fetch all from a scripted server; return what was fetched, what was refused, and what it heard."""

    async def run():
        async with (
            ScriptedPop3(script, greeting=greeting) as server,
            session(server.port, **options) as mailbox,
        ):
            return await fetch_all(mailbox), mailbox.refused, server.heard

    return asyncio.run(run())


def trouble(script=None, *, greeting=b"+OK ready\r\n", **options):
    """Return what trouble a scripted server makes, and what it heard, once the session is over."""

    async def run():
        async with ScriptedPop3(script, greeting=greeting) as server:
            with pytest.raises(SessionError) as raised:
                async with session(server.port, **options) as mailbox:
                    await fetch_all(mailbox)
            return raised.value.trouble, server.heard

    return asyncio.run(run())


def in_simulator(work, *contents, **options):
    """Return what `work` returns for a simulator in whose mailbox `contents` lie."""

    async def run():
        async with Simulator(**options) as simulator:
            for content in contents:
                simulator.maildrop.put(content)
            return await work(simulator)

    return asyncio.run(run())


# A session that goes well


def test_every_mail_is_listed_with_its_number_uid_and_size():
    async def work(simulator):
        async with session(simulator.pop3_port) as mailbox:
            return list(await mailbox.list())

    items = in_simulator(work, b"A: 1\r\n\r\none\r\n", b"A: 2\r\n\r\n")
    assert items == [Item(1, "00000001", 13), Item(2, "00000002", 8)]


def test_an_empty_mailbox_is_listed_as_empty():
    async def work(simulator):
        async with session(simulator.pop3_port) as mailbox:
            return await fetch_all(mailbox)

    assert in_simulator(work) == []


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"A: 1\r\n\r\none\r\n", id="plain"),
        pytest.param(b"A: 1\r\n\r\n.\r\n..\r\n.x\r\n\r\n.\r\n", id="dots"),
        pytest.param(b".\r\n", id="only a dot"),
        pytest.param(b"A: 1\r\n\r\n" + bytes(range(256)).replace(b"\r", b"") + b"\r\n", id="all octets"),
        pytest.param(b"A: 1\r\n\r\nbare\n.\nlf\n.\n\r\n", id="bare LF"),
        pytest.param(b"A: 1\r\n\r\nbare\r.\rcr\r.\r\r\n", id="bare CR"),
        pytest.param(b"A: " + b"x" * 300_000 + b"\r\n\r\n", id="a long line"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\r\n\r\n", id="empty lines"),
    ],
)
def test_a_mail_comes_octet_by_octet_as_it_lies_there(content):
    async def work(simulator):
        async with session(simulator.pop3_port) as mailbox:
            return await fetch_all(mailbox)

    before, after = b"A: before\r\n\r\n", b"A: after\r\n\r\n"
    fetched = in_simulator(work, before, content, after)
    assert [one.content for one in fetched] == [before, content, after]
    assert not any(one.truncated for one in fetched)


def test_more_mails_than_may_be_under_way_come_in_order():
    async def work(simulator):
        async with session(simulator.pop3_port) as mailbox:
            return await fetch_all(mailbox)

    contents = [b"A: %d\r\n\r\n" % number + b"x" * (number * 100) + b"\r\n" for number in range(300)]
    assert [one.content for one in in_simulator(work, *contents)] == contents


def test_what_is_deleted_goes_at_the_commit():
    async def work(simulator):
        async with session(simulator.pop3_port) as mailbox:
            first, _, third = await mailbox.list()
            await mailbox.delete([first, third])
            assert len(simulator.maildrop) == 3
            await mailbox.close(commit=True)
        return simulator.maildrop.messages()

    assert in_simulator(work, b"A: 1\r\n\r\n", b"A: 2\r\n\r\n", b"A: 3\r\n\r\n") == [
        ("00000002", b"A: 2\r\n\r\n")
    ]


def test_nothing_goes_without_a_commit_and_the_mailbox_is_free_again():
    async def work(simulator):
        async with session(simulator.pop3_port) as mailbox:
            await mailbox.delete(await mailbox.list())
        while True:  # until the server, too, has seen the session end
            with contextlib.suppress(SessionError):
                async with session(simulator.pop3_port) as mailbox:
                    return await mailbox.list()

    assert len(in_simulator(work, b"A: 1\r\n\r\n")) == 1


def test_a_session_that_is_not_committed_ends_without_quit():
    _, _, heard = run_script()
    assert heard == ["CAPA", "USER bounces", "PASS secret", "LIST", "UIDL", "RETR 1", "RETR 2"]


def test_a_mailbox_that_is_open_elsewhere_is_in_use():
    async def work(simulator):
        async with session(simulator.pop3_port):
            with pytest.raises(SessionError) as raised:
                await pop3.open(**NO_TLS, port=simulator.pop3_port)
        return raised.value.trouble

    assert in_simulator(work) is Trouble.IN_USE


# TLS


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_a_mailbox_is_read_under_tls(authority, tls):
    async def work(simulator):
        secured = {"tls": tls, "ca_file": authority.ca}
        async with session(simulator.pop3_port, **secured) as mailbox:
            return await fetch_all(mailbox)

    options = {"tls": tls, "certificate": authority.certificate, "key": authority.key}
    assert len(in_simulator(work, b"A: 1\r\n\r\n", **options)) == 1


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
@pytest.mark.parametrize(
    "wrong", [pytest.param("authority", id="unknown authority"), pytest.param("host", id="other name")]
)
def test_a_certificate_that_does_not_verify_ends_the_session(authority, other_authority, tls, wrong):
    async def work(simulator):
        with pytest.raises(SessionError) as raised:
            await pop3.open(
                **NO_TLS
                | {"tls": tls, "host": "localhost" if wrong == "host" else "127.0.0.1"}
                | {"ca_file": (authority if wrong == "host" else other_authority).ca},
                port=simulator.pop3_port,
            )
        return raised.value.trouble

    options = {"tls": tls, "certificate": authority.certificate, "key": authority.key}
    assert in_simulator(work, **options) is Trouble.TLS


def test_no_password_is_sent_where_starttls_is_not_offered(authority):
    script = {"STLS": b"-ERR what is that?\r\n"}
    assert trouble(script, tls="starttls", ca_file=authority.ca) == (Trouble.TLS, ["STLS"])


def test_words_that_come_ahead_of_tls_end_the_session(authority):
    script = {"STLS": b"+OK\r\n+OK injected\r\n"}
    assert trouble(script, tls="starttls", ca_file=authority.ca) == (Trouble.PROTOCOL, ["STLS"])


def test_a_missing_ca_file_is_tls_trouble(tmp_path):
    async def run():
        with pytest.raises(SessionError, match=r"none\.pem") as raised:
            await pop3.open(**NO_TLS | {"tls": "implicit"}, port=9, ca_file=tmp_path / "none.pem")
        return raised.value.trouble

    assert asyncio.run(run()) is Trouble.TLS


# Logging in


@pytest.mark.parametrize(
    ("capabilities", "reply", "expected"),
    [
        pytest.param("", "[IN-USE] busy", Trouble.IN_USE, id="in use"),
        pytest.param("", "[LOGIN-DELAY] too soon", Trouble.LOGIN_DELAY, id="login delay"),
        pytest.param("", "[SYS/TEMP] no disk", Trouble.TEMPORARY, id="temporary"),
        pytest.param("", "[SYS/PERM] no mailbox", Trouble.PERMANENT, id="permanent"),
        pytest.param("", "[AUTH] wrong", Trouble.CREDENTIALS, id="credentials"),
        pytest.param("", "[sys/temp] no disk", Trouble.TEMPORARY, id="lower case"),
        pytest.param("", "no", Trouble.CREDENTIALS, id="unexplained"),
        pytest.param("", "unable to lock maildrop", Trouble.IN_USE, id="a lock, in prose"),
        pytest.param("AUTH-RESP-CODE\r\n", "no", Trouble.TEMPORARY, id="not [AUTH], though it could say so"),
        pytest.param("", "[NEW-CODE] no", Trouble.CREDENTIALS, id="a code that we do not know"),
    ],
)
def test_a_refused_login_says_what_trouble_it_is(capabilities, reply, expected):
    script = {"CAPA": f"+OK\r\n{capabilities}.\r\n".encode(), "PASS": f"-ERR {reply}\r\n".encode()}
    found, heard = trouble(script)
    assert found is expected
    assert heard == ["CAPA", "USER bounces", "PASS secret"]


@pytest.mark.parametrize(
    ("given", "passing"),
    [
        (Trouble.NETWORK, True),
        (Trouble.IN_USE, True),
        (Trouble.LOGIN_DELAY, True),
        (Trouble.TEMPORARY, True),
        (Trouble.CREDENTIALS, False),
        (Trouble.PERMANENT, False),
        (Trouble.TLS, False),
        (Trouble.PROTOCOL, False),
    ],
)
def test_trouble_passes_or_needs_an_operator(given, passing):
    assert given.passing is passing


@pytest.mark.parametrize("name", ["username", "password"])
@pytest.mark.parametrize("value", ["bob\r\nDELE 1", "bob\n", "bob\0", "bob\x7f", "\tbob"])
def test_a_control_character_is_never_sent(name, value):
    assert trouble(**{name: value}) == (Trouble.CREDENTIALS, [])


def test_the_password_is_not_shown():
    async def run():
        async with ScriptedPop3() as server, session(server.port, password="hunter2") as mailbox:
            return repr(vars(mailbox))

    assert "hunter2" not in asyncio.run(run())


def test_utf8_is_asked_for_where_it_is_needed_and_offered():
    script = {"CAPA": b"+OK\r\nUTF8\r\n.\r\n"}
    assert run_script(script, username="bücher")[2][:3] == ["CAPA", "UTF8", "USER bücher"]
    assert run_script(script)[2][:2] == ["CAPA", "USER bounces"]


def test_a_token_is_sent_in_two_steps():
    script = {"AUTH": b"+ \r\n"}
    _, _, heard = run_script(script, authentication="xoauth2", password="t" * 10)
    assert heard[1:3] == [
        "AUTH XOAUTH2",
        "dXNlcj1ib3VuY2VzAWF1dGg9QmVhcmVyIHR0dHR0dHR0dHQBAQ==",
    ]


def test_a_token_is_sent_in_one_step_where_the_server_knows_no_other():
    response = "dXNlcj1ib3VuY2VzAWF1dGg9QmVhcmVyIHR0dHR0dHR0dHQBAQ=="
    script = {"AUTH": b"-ERR what?\r\n", "AUTH XOAUTH2 ": b"+OK\r\n"}
    _, _, heard = run_script(script, authentication="xoauth2", password="t" * 10)
    assert heard[1:3] == ["AUTH XOAUTH2", f"AUTH XOAUTH2 {response}"]


def test_a_refusal_that_explains_itself_is_not_tried_again():
    script = {"AUTH": b"-ERR [IN-USE] locked\r\n"}
    found, heard = trouble(script, authentication="xoauth2")
    assert (found, heard) == (Trouble.IN_USE, ["CAPA", "AUTH XOAUTH2"])


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        pytest.param(b"SASL LOGIN PLAIN\r\n", ["AUTH PLAIN", "AGJvdW5jZXMAc2VjcmV0"], id="no USER"),
        pytest.param(b"USER\r\nSASL PLAIN\r\n", ["USER bounces", "PASS secret"], id="both"),
        pytest.param(b"SASL CRAM-MD5\r\n", ["USER bounces", "PASS secret"], id="neither"),
    ],
)
def test_a_password_goes_by_sasl_where_user_is_not_offered(capabilities, expected):
    script = {"CAPA": b"+OK\r\n" + capabilities + b".\r\n", "AUTH": b"+ \r\n"}
    assert run_script(script)[2][1:3] == expected


def test_a_token_that_is_refused_by_a_challenge_is_bad_credentials():
    script = {"AUTH": b"+ \r\n", "dXNl": b"+ eyJzdGF0dXMiOiI0MDAifQ==\r\n", "": b"-ERR invalid token\r\n"}
    found, heard = trouble(script, authentication="xoauth2")
    assert found is Trouble.CREDENTIALS
    assert heard[-1] == ""


@pytest.mark.parametrize(
    ("capability", "seconds"),
    [
        pytest.param(b"LOGIN-DELAY 900\r\n", 900, id="for all"),
        pytest.param(b"LOGIN-DELAY 900 USER\r\n", 900, id="by user"),
        pytest.param(b"LOGIN-DELAY soon\r\n", 0, id="no number"),
        pytest.param(b"", 0, id="none"),
    ],
)
def test_the_delay_between_logins_is_known(capability, seconds):
    async def run():
        script = {"CAPA": b"+OK\r\n" + capability + b".\r\n"}
        async with ScriptedPop3(script) as server, session(server.port) as mailbox:
            return mailbox.login_delay_seconds, server.heard.count("CAPA")

    assert asyncio.run(run()) == (seconds, 2 if b"USER" in capability else 1)


# Servers that can do little


def test_without_capa_commands_go_one_by_one():
    fetched, _, heard = run_script({"CAPA": b"-ERR unknown\r\n"})
    assert [one.uid for one in fetched] == ["first", "second"]
    assert heard[-2:] == ["RETR 1", "RETR 2"]


@pytest.mark.parametrize(
    ("uidl", "expected"),
    [
        pytest.param(b"1 one\r\n2 two\r\n3 three\r\n", ["one", "two", "three"], id="the same order"),
        pytest.param(b"3 three\r\n1 one\r\n2 two\r\n", ["one", "two", "three"], id="another order"),
        pytest.param(b"1 one\r\n3 three\r\n", ["one", "", "three"], id="one is missing"),
        pytest.param(b"1 one\r\n2 two\r\n3 three\r\n4 four\r\n", ["one", "two", "three"], id="one too many"),
    ],
)
def test_each_mail_has_its_own_uid_whatever_the_order(uidl, expected):
    script = {
        "LIST": b"+OK\r\n1 10\r\n2 20\r\n3 30\r\n.\r\n",
        "UIDL": b"+OK\r\n" + uidl + b".\r\n",
    }

    async def run():
        async with ScriptedPop3(script) as server, session(server.port) as mailbox:
            return await mailbox.list()

    items = asyncio.run(run())
    assert list(items) == [Item(number, uid, 10 * number) for number, uid in enumerate(expected, 1)]
    assert items[1:] == list(items)[1:]


@pytest.mark.parametrize(
    ("capability", "octets", "asked"),
    [
        pytest.param(b"PIPELINING\r\n", 12, 256, id="so many at once"),
        pytest.param(b"PIPELINING\r\n", 300_000, 3, id="or so many octets"),
        pytest.param(b"PIPELINING\r\n", 5_000_000, 1, id="or one mail that is larger than that"),
        pytest.param(b"", 12, 1, id="one by one"),
    ],
)
def test_what_is_under_way_is_bounded(capability, octets, asked):
    listing = b"".join(b"%d %d\r\n" % (number, octets) for number in range(1, 301))
    script = {
        "CAPA": b"+OK\r\n" + capability + b".\r\n",
        "LIST": b"+OK\r\n" + listing + b".\r\n",
        **dict.fromkeys(("RETR", "RETR 1", "RETR 2"), SAY_NOTHING),
    }
    _, heard = trouble(script, timeout_seconds=0.3)
    assert [command for command in heard if "RETR" in command] == [
        f"RETR {number}" for number in range(1, asked + 1)
    ]


def test_without_uidl_the_hash_of_the_content_names_a_mail():
    fetched, _, _ = run_script({"UIDL": b"-ERR unknown\r\n"})
    assert [one.item.uid for one in fetched] == ["", ""]
    assert [one.uid for one in fetched] == [hashlib.sha256(one.content).hexdigest() for one in fetched]


def test_mails_that_share_a_uid_are_both_fetched_and_both_deleted():
    async def run():
        script = {"UIDL": b"+OK\r\n1 same\r\n2 same\r\n.\r\n"}
        async with ScriptedPop3(script) as server, session(server.port) as mailbox:
            fetched = await fetch_all(mailbox)
            await mailbox.delete(one.item for one in fetched)
            await mailbox.close(commit=True)
            return [one.content for one in fetched], server.heard[-3:]

    contents, heard = asyncio.run(run())
    assert len(set(contents)) == 2
    assert heard == ["DELE 1", "DELE 2", "QUIT"]


# Large mails


def test_of_a_large_mail_only_the_beginning_is_fetched():
    async def work(simulator):
        async with session(simulator.pop3_port, max_size_octets=200_000) as mailbox:
            return await fetch_all(mailbox)

    large = b"A: large\r\n\r\n" + b"0123456789\r\n" * 100_000
    fetched = in_simulator(work, b"A: 1\r\n\r\n", large, b"A: 3\r\n\r\n")
    assert [one.truncated for one in fetched] == [False, True, False]
    assert fetched[1].content == large[: 12 + 1000 * 12]
    assert fetched[1].item.size_octets == len(large)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(b"0123456789\r\n" * 60_000, id="many lines"),
        pytest.param(b"." * 1_000_000 + b"\r\n", id="one line"),
        pytest.param(b"..\r\n" * 30_000, id="stuffed dots"),
        pytest.param(b"0123456789\r\n" * 90, id="a little over the limit"),
    ],
)
@pytest.mark.parametrize("listed", [10, 2_000_000], ids=["listed as small", "listed as large"])
def test_without_top_a_large_mail_is_cut_and_the_session_goes_on(lines, listed):
    script = {
        "LIST": b"+OK\r\n1 %d\r\n2 12\r\n.\r\n" % listed,
        "TOP": b"-ERR unknown\r\n",
        "RETR 1": b"+OK\r\nA: 1\r\n\r\n" + lines + b".\r\n",
    }
    (large, small), refused, _ = run_script(script, max_size_octets=1000)
    whole = (b"A: 1\r\n\r\n" + lines).replace(b"\r\n.", b"\r\n")
    assert large.truncated
    assert 0 < len(large.content) <= 1000
    assert whole.startswith(large.content)
    assert (small.content, small.truncated) == (b"A: 2\r\n\r\ntwo\r\n", False)
    assert refused == []


def test_a_large_mail_whose_first_line_does_not_end_is_cut_within_it():
    script = {"RETR 1": b"+OK\r\n" + b"x" * 1_000_000 + b"\r\n.\r\n"}
    (large, small), _, _ = run_script(script, max_size_octets=1000)
    assert (large.content, large.truncated) == (b"x" * 1000, True)
    assert small.content == b"A: 2\r\n\r\ntwo\r\n"


def test_a_mail_over_the_limit_that_comes_together_with_the_one_before_is_cut():
    lines = b"0123456789\r\n" * 90
    both = b"+OK\r\nA: 1\r\n.\r\n+OK\r\n" + lines + b".\r\n"
    (small, large), _, _ = run_script({"RETR 1": both, "RETR 2": SAY_NOTHING}, max_size_octets=1000)
    assert (small.content, small.truncated) == (b"A: 1\r\n", False)
    assert (large.content, large.truncated) == (lines[: 83 * 12], True)


def test_of_a_mail_over_the_limit_no_more_is_kept_than_its_head():
    lines = b"0123456789\r\n" * 100_000
    script = {"RETR 1": b"+OK\r\n" + lines + b".\r\n"}
    (large, small), _, _ = run_script(script, max_size_octets=1_000_000)
    assert (large.content, large.truncated) == (lines[: HEAD_OCTETS // 12 * 12], True)
    assert small.content == b"A: 2\r\n\r\ntwo\r\n"


def test_a_mail_of_just_the_limit_is_not_cut():
    content = b"A: 1\r\n\r\n" + b"x" * 90 + b"\r\n"
    script = {"RETR 1": b"+OK\r\n" + content + b".\r\n"}
    (fetched, _), _, _ = run_script(script, max_size_octets=100)
    assert (fetched.content, fetched.truncated) == (content, False)


def test_a_mail_that_is_refused_is_left_out_and_told():
    fetched, refused, _ = run_script({"RETR 1": b"-ERR [SYS/PERM] damaged\r\n"})
    assert [one.uid for one in fetched] == ["second"]
    assert refused == [(Item(1, "first", 12), "-ERR [SYS/PERM] damaged")]


# Servers that do not behave


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param({"PASS": HANG_UP}, Trouble.NETWORK, id="hangs up at PASS"),
        pytest.param({"LIST": SAY_NOTHING}, Trouble.NETWORK, id="no reply to LIST"),
        pytest.param({"UIDL": DRIP}, Trouble.NETWORK, id="an endless line, slowly"),
        pytest.param({"RETR 1": SAY_NOTHING}, Trouble.NETWORK, id="no reply to RETR"),
        pytest.param({"RETR 1": b"+OK\r\nA: 1\r\n"}, Trouble.NETWORK, id="a mail that stops"),
        pytest.param({"LIST": b"+OK\r\n1 12\r\n"}, Trouble.NETWORK, id="a list that stops"),
        pytest.param({"LIST": b"+OK\r\n1\r\n.\r\n"}, Trouble.PROTOCOL, id="a list without sizes"),
        pytest.param({"LIST": b"+OK\r\n1 many\r\n.\r\n"}, Trouble.PROTOCOL, id="a size that is none"),
        pytest.param(
            {"LIST": b"+OK\r\n1 " + b"9" * 25 + b"\r\n.\r\n"}, Trouble.PROTOCOL, id="a size beyond all"
        ),
        pytest.param({"UIDL": b"+OK\r\none first\r\n.\r\n"}, Trouble.PROTOCOL, id="a number that is none"),
        pytest.param({"LIST": b"* OK\r\n"}, Trouble.PROTOCOL, id="another protocol"),
        pytest.param({"LIST": b"+" * 1_200_000}, Trouble.PROTOCOL, id="an endless line, fast"),
        pytest.param({"LIST": b"+OK\r\n.\r\n+OK\r\n"}, Trouble.PROTOCOL, id="one reply too many"),
        pytest.param({"LIST": b"-ERR [SYS/TEMP] not now\r\n"}, Trouble.TEMPORARY, id="LIST refused"),
        pytest.param({"RETR 1": b"+OK\r\n" + b"x\r\n" * 2_000_000}, Trouble.PROTOCOL, id="an endless mail"),
    ],
)
def test_a_server_that_misbehaves_is_left_without_quit(script, expected):
    patience = 0.3 if expected is Trouble.NETWORK else 60
    found, heard = trouble(script, timeout_seconds=patience, max_size_octets=100_000)
    assert found is expected
    assert "QUIT" not in heard


@pytest.mark.parametrize(
    ("greeting", "expected"),
    [
        pytest.param(b"-ERR [SYS/TEMP] no\r\n", Trouble.TEMPORARY, id="refused for a time"),
        pytest.param(b"-ERR [SYS/PERM] no\r\n", Trouble.PERMANENT, id="refused"),
        pytest.param(b"220 smtp.test ESMTP\r\n", Trouble.PROTOCOL, id="an SMTP server"),
        pytest.param(b"* OK IMAP4rev1\r\n", Trouble.PROTOCOL, id="an IMAP server"),
        pytest.param(HANG_UP, Trouble.NETWORK, id="hangs up"),
        pytest.param(SAY_NOTHING, Trouble.NETWORK, id="silent"),
        pytest.param(DRIP, Trouble.NETWORK, id="dripping"),
    ],
)
def test_a_greeting_that_is_none_is_trouble(greeting, expected):
    patience = 0.3 if expected is Trouble.NETWORK else 60
    assert trouble(greeting=greeting, timeout_seconds=patience)[0] is expected


def test_a_server_that_is_not_there_is_network_trouble_and_told_in_words():
    async def run():
        async with ScriptedPop3() as server:
            port = server.port
        with pytest.raises(SessionError) as raised:
            await pop3.open(**NO_TLS, port=port)
        return raised.value

    error = asyncio.run(run())
    assert (error.trouble, str(error)) == (Trouble.NETWORK, "Connection refused")


def test_a_mail_with_bare_lf_cannot_forge_a_reply():
    forged = b"A: 1\r\n\r\nx\n.\n+OK forged\n\r\n"
    script = {"RETR 1": b"+OK\r\n" + forged + b".\r\n", "DELE 1": b"-ERR no\r\n"}

    async def run():
        async with ScriptedPop3(script) as server, session(server.port) as mailbox:
            fetched = await fetch_all(mailbox)
            await mailbox.delete([fetched[0].item])
            return fetched[0].content, mailbox.refused

    assert asyncio.run(run()) == (forged, [(Item(1, "first", 12), "-ERR no")])


@pytest.mark.parametrize("answer", [b"-ERR some were not removed\r\n", HANG_UP], ids=["-ERR", "hangs up"])
def test_a_quit_that_fails_is_no_error(answer):
    async def run():
        async with ScriptedPop3({"QUIT": answer}) as server, session(server.port) as mailbox:
            await mailbox.close(commit=True)
            return server.heard[-1]

    assert asyncio.run(run()) == "QUIT"


def test_after_trouble_nothing_is_committed():
    async def run():
        async with ScriptedPop3({"RETR 2": HANG_UP}) as server, session(server.port) as mailbox:
            await mailbox.delete((await mailbox.list())[:1])
            with pytest.raises(SessionError):
                await fetch_all(mailbox)
            with pytest.raises(SessionError):
                await mailbox.list()
            await mailbox.close(commit=True)
            return server.heard

    assert "QUIT" not in asyncio.run(run())


@pytest.mark.parametrize("where", ["LIST", "PASS"])
def test_a_cancelled_session_ends_at_once_without_quit(where):
    async def run():
        async with ScriptedPop3({where: SAY_NOTHING}) as server:

            async def read():
                async with session(server.port) as mailbox:
                    await mailbox.list()

            reading = asyncio.create_task(read())
            await server.hears(where)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            return server  # which waits for the end of the session

    assert "QUIT" not in asyncio.run(run()).heard


def test_a_consumer_that_stops_early_ends_the_session_without_quit():
    """More is under way than it took, and a server with EXPIRE 0 would delete that at a QUIT (RFC 2449 §6.7)."""

    async def run():
        async with ScriptedPop3() as server, session(server.port) as mailbox:
            fetching = mailbox.fetch(await mailbox.list())
            await anext(fetching)
            await fetching.aclose()
            with pytest.raises(SessionError):
                await mailbox.list()
            await mailbox.close(commit=True)
            return server.heard[-1]

    assert asyncio.run(run()) == "RETR 2"
