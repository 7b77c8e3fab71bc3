"""The configuration: every fault is shown at once, in words that say what to do."""

from __future__ import annotations

import re
import tomllib
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from typer.testing import CliRunner

from mailbound import config
from mailbound.cli import config as command
from mailbound.config import loading, quantities, secrets
from mailbound.errors import ConfigError

TOP = Path(__file__).parent.parent
SAMPLE = TOP / "config.toml"
BAD = sorted((TOP / "tests" / "bad_configs").glob("*.toml"))
GOOD = """
[stores.main]
name = "Example News"
list_id = "news.example.com"
[stores.main.outbound]
address = "hello@example.com"
host = "relay.example.com"
username = "mailbound"
password_credential = "relay-password"
[stores.main.inbound]
address = "bounces@example.com"
host = "mail.example.com"
username = "bounces"
password_credential = "mailbox-password"
"""
SECRETS = {"RELAY_PASSWORD": "canary-one", "MAILBOX_PASSWORD": "canary-two"}


patient = settings(deadline=None)  # the machine may be busy
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def quoted(text: str) -> str:
    """Return `text` as TOML writes it, every character escaped."""
    return '"' + "".join(f"\\U{ord(character):08x}" for character in text) + '"'


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    return path


def faults_of(path: Path, **options) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.load(path, **options)
    return [fault.removeprefix(f"{path}: ") for fault in caught.value.faults]


# --- faults -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_file_shows_exactly_the_faults_it_expects(path):
    expected = re.findall(r"^# expect: (.*)$", path.read_text(errors="replace"), re.MULTILINE)
    found = faults_of(path, environment={})
    assert len(found) == len(expected)
    for fault, words in zip(found, expected, strict=True):
        if words.endswith("…"):  # the rest is said by a library
            assert fault.startswith(words.removesuffix("…"))
        else:
            assert fault == words


def test_a_fault_begins_with_the_file_as_it_was_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, GOOD.replace('host = "relay', 'port = 70000\nhost = "relay'))
    with pytest.raises(ConfigError) as caught:
        config.load(Path("config.toml"))
    assert str(caught.value) == "config.toml: stores.main.outbound.port: 70000 is not a port (1-65535)"


def test_a_missing_file_and_a_folder_are_faults(tmp_path):
    missing = tmp_path / "nothing.toml"
    assert faults_of(missing) == ["there is no such file; name one with --config or MAILBOUND_CONFIG"]
    assert faults_of(tmp_path) == ["it cannot be read: Is a directory"]


def test_deep_nesting_is_a_fault(tmp_path):
    assert faults_of(write(tmp_path, "a = " + "[" * 5000)) == ["it is nested too deeply"]


@patient
@given(TEXT, TEXT)
@example("", "[key]")  # which is also pydantic's own word for a key
def test_whatever_stands_in_the_file_each_fault_is_one_line(tmp_path_factory, value, key):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    quoted = "".join(f"\\U{ord(c):08x}" for c in key)
    worth = "".join(f"\\U{ord(c):08x}" for c in value if not 0xD800 <= ord(c) < 0xE000)
    path.write_text(
        f'"{quoted}" = "{worth}"\n[log]\nlevel = "{worth}"\n[stores."{quoted}"]\nname = "{worth}"\n'
    )
    found = faults_of(path, environment={})
    assert len(found) >= 4
    assert all(len(fault.splitlines()) == 1 and not quantities.has_control(fault) for fault in found)


_WORTH = st.one_of(
    TEXT.map(quoted),
    st.sampled_from(
        ['"1d"', '"0s"', '"1GiB"', '"insecure"', '"localhost"', '"a@b.example"', '"*"', "{}", "{a = 1}"]
    ),
    st.sampled_from(["true", "inf", "nan", "-1", "0", "1e9", "70000", "[]", '["/x"]', "1979-05-27", "[[1]]"]),
    st.integers().map(str),
)


@patient
@given(st.integers(0), _WORTH)
def test_whatever_a_key_is_set_to_it_is_taken_or_named(tmp_path_factory, place, worth):
    folder = tmp_path_factory.getbasetemp()
    lines = config.show(config.load(write(folder, GOOD))).splitlines()
    lines = [re.sub(r"^# (\w+) is unset$", r"\1 = ?", line) for line in lines]
    numbers = [number for number, line in enumerate(lines) if " = " in line]
    chosen = numbers[place % len(numbers)]
    lines[chosen] = f"{lines[chosen].partition(' ')[0]} = {worth}"
    path = write(folder, "\n".join(line for line in lines if not line.endswith("?")))
    try:
        config.load(path)
    except ConfigError as error:
        faults = [fault.removeprefix(f"{path}: ") for fault in error.faults]
        assert all(
            re.match(r"[a-z]+(\.\w+)*: \S", fault) and len(fault.splitlines()) == 1 for fault in faults
        )


@patient
@given(st.text(alphabet='ab="[]{}.,#\n\t 1é', max_size=40))
def test_whatever_the_syntax_only_config_errors_come(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "syntax.toml"
    path.write_text(text)
    assert all(len(fault.splitlines()) == 1 for fault in faults_of(path, environment={}))


# --- the sample file --------------------------------------------------------------------------------------


def test_the_sample_is_good_as_it_stands():
    loaded = config.load(SAMPLE, secrets=True, environment={})
    assert loaded.warnings == ()
    assert loaded.database.url == f"sqlite:///{TOP}/mailbound.db"
    assert loaded.templates.folder == TOP / "templates"


@pytest.mark.parametrize("name", ["log", "sending", "breaker", "guard", "policy", "inbound", "web"])
def test_the_sample_says_what_the_defaults_are(name):
    section = getattr(config.load(SAMPLE), name)
    assert section == type(section)()


def test_every_key_stands_in_the_sample():
    tables = {
        match[1]: set(re.findall(r"^(?:# )?(\w+) = ", match[2], re.MULTILINE))
        for match in re.finditer(
            r"^\[([\w.]+)\][^\n]*\n(.*?)(?=^\[|\Z)", SAMPLE.read_text(), re.MULTILINE | re.DOTALL
        )
    }
    shown = config.show(config.load(SAMPLE))
    for table, rows in re.findall(r"^\[([\w.]+)\]\n(.*?)(?=^\[|\Z)", shown, re.MULTILINE | re.DOTALL):
        keys = set(re.findall(r"^(?:# )?(\w+) (?:=|is unset)", rows, re.MULTILINE))
        assert keys == tables[table], table


# --- values -----------------------------------------------------------------------------------------------


@patient
@given(
    st.timedeltas(timedelta(0), quantities.LONGEST).map(
        lambda value: timedelta(seconds=round(value.total_seconds()))
    )
)
def test_a_duration_reads_back_as_written(value):
    assert quantities.duration(quantities.write_duration(value)) == value


@patient
@given(st.integers(1, 2**50))
def test_a_size_reads_back_as_written(octets):
    assert quantities.size(quantities.write_size(octets)) == octets


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("Relay.Localhost.", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("192.0.2.1", False),
        ("localhost.example.com", False),
    ],
)
def test_a_loopback_host_is_told_from_others(host, local):
    assert quantities.is_loopback(host) is local


@pytest.mark.parametrize(
    ("tls", "ports"), [("implicit", (465, 995)), ("starttls", (587, 110)), ("insecure", (25, 110))]
)
def test_a_port_that_is_not_written_is_the_usual_one(tmp_path, tls, ports):
    text = re.sub(r'host = ".*"', f'host = "localhost"\ntls = "{tls}"', GOOD)
    store = config.load(write(tmp_path, text)).stores["main"]
    assert (store.outbound.port, store.inbound.port) == ports


def test_a_password_may_travel_in_the_clear_on_this_machine(tmp_path):
    text = re.sub(r'host = ".*"', 'host = "localhost"\ntls = "insecure"', GOOD)
    loaded = config.load(write(tmp_path, text))
    assert loaded.stores["main"].outbound.username == "mailbound"
    assert loaded.warnings == ()


def test_tls_is_required_unless_written_out(tmp_path):
    store = config.load(write(tmp_path, GOOD)).stores["main"]
    assert (store.outbound.tls, store.inbound.tls) == ("implicit", "implicit")


def test_sections_are_frozen(tmp_path):
    loaded = config.load(write(tmp_path, GOOD))
    with pytest.raises(ValidationError, match="frozen"):
        loaded.sending.in_doubt = "hold"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\ufeff" + GOOD, id="a byte order mark"),
        pytest.param(GOOD.replace("bounces@", "b" * 23 + "@"), id="a local part that just fits"),
        pytest.param(
            '[policy]\nsoft_limit = 7\nsoft_window = "7d"' + GOOD, id="a limit that can just be passed"
        ),
        pytest.param(GOOD.replace("relay.example.com", "2001:db8::1"), id="an IPv6 relay"),
        pytest.param(
            GOOD.replace("host =", 'ehlo_name = "[IPv6:2001:db8::1]"\nhost =', 1), id="an address literal"
        ),
    ],
)
def test_what_just_passes_is_no_fault(tmp_path, text):
    assert list(config.load(write(tmp_path, text)).stores) == ["main"]


def test_the_base_of_unsubscribe_links_ends_with_a_slash(tmp_path):
    loaded = config.load(write(tmp_path, '[web]\nunsubscribe_url = "https://news.example.com/u"' + GOOD))
    assert loaded.web.unsubscribe_url == "https://news.example.com/u/"


# --- places -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "environment", "expected"),
    [
        pytest.param("/srv/news", {}, "/srv/news", id="beside the file"),
        pytest.param("/etc/mailbound", {}, "/var/lib/mailbound", id="etc has its state in var"),
        pytest.param(
            "/etc/mailbound", {"STATE_DIRECTORY": "/var/lib/private/a:/b"}, "/var/lib/private/a", id="systemd"
        ),
    ],
)
def test_the_database_lies_where_state_belongs(folder, environment, expected):
    assert loading._state_folder(Path(folder), environment) == Path(expected)


def test_a_relative_database_path_begins_at_the_state_directory(tmp_path):
    path = write(tmp_path, GOOD)
    assert config.load(path, environment={}).database.url == f"sqlite:///{tmp_path}/mailbound.db"
    loaded = config.load(path, environment={"STATE_DIRECTORY": "/var/lib/x"})
    assert loaded.database.url == "sqlite:////var/lib/x/mailbound.db"
    assert loaded.templates.folder == tmp_path / "templates"


def test_an_absolute_database_path_stays(tmp_path):
    path = write(tmp_path, '[database]\nurl = "sqlite:////srv/m.db"\n' + GOOD)
    assert (
        config.load(path, environment={"STATE_DIRECTORY": "/var/lib/x"}).database.url == "sqlite:////srv/m.db"
    )


def test_the_database_password_reaches_the_engine_and_nobody_else(tmp_path):
    text = (
        '[database]\nurl = "postgresql+psycopg://mailbound@db.example.com:5433/news?sslmode=require"\n'
        'password_credential = "database-password"\n'
    )
    secret = "p@ss/w:ord?#%41 é"
    loaded = config.load(write(tmp_path, text + GOOD), environment={"DATABASE_PASSWORD": secret})
    url = sa.make_url(loaded.database.connect_url())
    assert (url.username, url.password, url.host, url.port) == ("mailbound", secret, "db.example.com", 5433)
    assert url.query == {"sslmode": "require"}
    assert secret not in loaded.database.url + repr(loaded) + config.show(loaded)


# --- secrets ----------------------------------------------------------------------------------------------


def test_secrets_come_from_the_environment_where_systemd_hands_over_none(tmp_path):
    store = config.load(write(tmp_path, GOOD), secrets=True, environment=SECRETS).stores["main"]
    assert store.outbound.password.get_secret_value() == "canary-one"
    assert store.inbound.password.get_secret_value() == "canary-two"


def test_all_secrets_can_be_handed_to_the_log(tmp_path):
    database = '[database]\nurl = "postgresql+psycopg://m@db/m"\npassword_credential = "database-password"\n'
    environment = {**SECRETS, "DATABASE_PASSWORD": "canary-three"}
    loaded = config.load(write(tmp_path, database + GOOD), environment=environment)
    assert {secret.get_secret_value() for secret in loaded.secrets} == {
        "canary-one",
        "canary-two",
        "canary-three",
    }


def test_secrets_come_from_systemd_and_then_from_nowhere_else(tmp_path):
    (tmp_path / "relay-password").write_bytes(b"from-systemd\r\n")
    environment = {**SECRETS, "CREDENTIALS_DIRECTORY": str(tmp_path)}
    loaded = config.load(write(tmp_path, GOOD), environment=environment).stores["main"]
    assert loaded.outbound.password.get_secret_value() == "from-systemd"
    assert loaded.inbound.password is None
    [fault] = faults_of(tmp_path / "config.toml", secrets=True, environment=environment)
    assert fault == (
        'stores.main.inbound.password_credential: systemd handed over no credential "mailbox-password": '
        "is the file there that LoadCredential=mailbox-password:FILE in the unit names?"
    )


def test_a_missing_secret_is_a_fault_beside_the_others_when_asked_for(tmp_path):
    path = write(tmp_path, '[log]\nlevel = "loud"\n' + GOOD)
    one, other = faults_of(path, secrets=True, environment={"RELAY_PASSWORD": "x"})
    assert one == 'log.level: "loud" is not one of debug, info, warning, error'
    assert other == (
        'stores.main.inbound.password_credential: there is no secret "mailbox-password": set the environment '
        "variable MAILBOX_PASSWORD, or LoadCredential=mailbox-password:FILE in the unit"
    )


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"bob\r\nDELE 1\r\n", "holds a control character"),
        (b"a\x00b", "holds a control character"),
        (b"\xff", "is not UTF-8"),
    ],
)
def test_a_secret_of_no_use_is_refused_without_showing_it(tmp_path, content, fault):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match=f'^the secret "x" {fault}$'):
        secrets.read("x", environment={"CREDENTIALS_DIRECTORY": str(tmp_path)})


def test_a_secret_is_never_in_clear_in_what_is_shown(tmp_path):
    loaded = config.load(write(tmp_path, GOOD), secrets=True, environment=SECRETS)
    shown = (
        repr(loaded) + str(loaded) + config.show(loaded) + config.explain(loaded) + loaded.model_dump_json()
    )
    assert "canary" not in shown


def test_a_token_command_must_be_a_program(tmp_path):
    program = "/nowhere/relay-token"
    text = GOOD.replace('password_credential = "relay-password"', f'token_command = ["{program}"]')
    path = write(tmp_path, text)
    assert config.load(path, environment=SECRETS).stores["main"].outbound.token_command == (program,)
    assert faults_of(path, secrets=True, environment=SECRETS) == [
        f'stores.main.outbound.token_command: "{program}" is not a program that can be run'
    ]


def test_a_changed_secret_makes_another_configuration(tmp_path):
    path = write(tmp_path, GOOD)
    one = config.load(path, environment=SECRETS)
    assert one == config.load(path, environment=SECRETS)
    assert one != config.load(path, environment={**SECRETS, "RELAY_PASSWORD": "other"})


# --- warnings, show, explain, the command -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "warning"),
    [
        pytest.param(
            'username = "mailbound"\npassword_credential = "relay-password"',
            'tls = "insecure"',
            "stores.main.outbound.tls: mail to and from relay.example.com can be read and changed on its way",
            id="insecure",
        ),
        pytest.param(
            'host = "relay.example.com"',
            'host = "relay.example.com"\ntls = "starttls"\nport = 465',
            'stores.main.outbound.port: 465 is the port of tls = "implicit", not of "starttls"',
            id="465 with starttls",
        ),
        pytest.param(
            'host = "mail.example.com"',
            'host = "mail.example.com"\nport = 110',
            'stores.main.inbound.port: 110 is the port of tls = "starttls", not of "implicit"',
            id="110 with implicit",
        ),
        pytest.param(
            "bounces@example.com",
            "news+b@example.com",
            "stores.main.inbound.address: will mail to news+b+TOKEN arrive? its local part has a + already",
            id="a plus already",
        ),
        pytest.param(
            "[stores.main]",
            '[log]\naddresses = "clear"\n[stores.main]',
            "log.addresses: the log will name the recipients; mind how long it is kept and who reads it",
            id="addresses in clear",
        ),
    ],
)
def test_what_deserves_a_second_look_is_a_warning(tmp_path, old, new, warning):
    assert config.load(write(tmp_path, GOOD)).warnings == ()
    assert config.load(write(tmp_path, GOOD.replace(old, new))).warnings == (warning,)


@pytest.mark.parametrize("text", [GOOD, SAMPLE.read_text()], ids=["good", "sample"])
def test_what_is_shown_loads_as_the_same_configuration(tmp_path, text):
    loaded = config.load(write(tmp_path, text), environment=SECRETS)
    shown = config.show(loaded)
    tomllib.loads(shown)
    assert config.load(write(tmp_path, shown), environment=SECRETS) == loaded


def test_show_tells_which_secrets_are_at_hand(tmp_path):
    shown = config.show(config.load(write(tmp_path, GOOD), environment={"RELAY_PASSWORD": "canary"}))
    assert 'password_credential = "relay-password"  # ********' in shown
    assert 'password_credential = "mailbox-password"  # not at hand' in shown


def test_explain_says_the_numbers_of_the_file(tmp_path):
    text = """
[policy]
confirm_events = 4
confirm_apart = "36h"
soft_limit = 7
[sending]
in_doubt = "hold"
"""
    words = " ".join(config.explain(config.load(write(tmp_path, text + GOOD))).split())
    assert "after 4 events at least 36 hours apart" in words
    assert "More than 7 within 30 days suspend the address for 30 days" in words
    assert "When no reply to the final dot came, it is held for an operator" in words
    assert "bounces+TOKEN@example.com" in words
    assert "relay.example.com:465 (TLS from the first octet) as mailbound, with a password" in words


def test_check_says_that_a_file_is_good_and_what_to_look_at(tmp_path):
    path = write(tmp_path, '[log]\naddresses = "clear"\n' + GOOD)
    result = CliRunner().invoke(
        command.app, ["check"], obj=path, env={**SECRETS, "CREDENTIALS_DIRECTORY": None}
    )
    assert result.exit_code == 0
    assert result.stdout == f"{path} is good\n"
    assert result.stderr.startswith(f"{path}: warning: log.addresses: ")


def test_check_wants_the_secrets_unless_told_otherwise(tmp_path):
    path = write(tmp_path, GOOD)
    without = {"RELAY_PASSWORD": None, "MAILBOX_PASSWORD": None, "CREDENTIALS_DIRECTORY": None}
    result = CliRunner().invoke(command.app, ["check"], obj=path, env=without)
    assert isinstance(result.exception, ConfigError)
    assert len(result.exception.faults) == 2
    assert CliRunner().invoke(command.app, ["check", "--no-secrets"], obj=path, env=without).exit_code == 0


@pytest.mark.parametrize("name", ["show", "explain"])
def test_show_and_explain_print_what_they_are_asked_for(tmp_path, name):
    path = write(tmp_path, GOOD)
    result = CliRunner().invoke(command.app, [name], obj=path)
    assert result.stdout == getattr(config, name)(config.load(path))


def test_rates_by_domain_are_shown_as_they_can_be_loaded_again(tmp_path):
    text = GOOD + '[sending]\ndomain_rates = { "Example.COM" = 5, "example.net" = 0.5, "example.org" = 0 }\n'
    loaded = config.load(write(tmp_path, text))
    assert loaded.sending.domain_rates == {"example.com": 5, "example.net": 0.5, "example.org": 0}
    again = config.load(write(tmp_path, config.show(loaded)))
    assert again.sending.domain_rates == loaded.sending.domain_rates
    said = "example.com 5 a second, example.net 0.5 a second, example.org any number"
    assert said in " ".join(config.explain(loaded).split())
