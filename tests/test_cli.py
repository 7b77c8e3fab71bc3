"""The command line as a whole: help, faults, pipes, the simulator's options and the doctor."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import command
from box import Box
from mailbound import cli
from mailbound.cli import commands
from mailbound.lifecycle import DeliveryState, RunState
from rows import World

PROGRAM = (sys.executable, "-m", "mailbound.cli")


def every_command() -> Iterator[tuple[str, ...]]:
    """Give the words of each command."""
    group: Any = typer.main.get_command(cli.app)
    for name, inner in group.commands.items():
        subcommands = getattr(inner, "commands", None)
        yield from ((name, each) for each in subcommands) if subcommands else [(name,)]


COMMANDS = list(every_command())
WITHOUT_CONFIG = {("demo",), ("simulate",), ("logs",), ("bounce", "read")}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Return a box whose relay and mailbox are not there, with one activity that was sent."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    insecure = f'port = {port}\ntls = "insecure"'
    with Box(tmp_path_factory.mktemp("cli"), outbound=insecure, inbound=insecure) as made:
        made.populate({"joe": "joe@example.com"})
        made.schedule("spring")
        yield made


# --- help -------------------------------------------------------------------------------------------------


def test_help_names_every_command_and_imports_none_of_them():
    script = (
        "import sys; from mailbound import cli; sys.argv[1:] = ['--help']\n"
        "try: cli.main()\n"
        "finally: print([name for name in ('sqlalchemy', 'pydantic', 'alembic') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert all(f"\n  {name} " in said and text in said for name, text in commands.ABOUT.items())
    assert said.endswith("[]\n")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_and_each_of_its_options(words):
    group: Any = typer.main.get_command(cli.app)
    inner = group.commands[words[0]]
    parameters = (inner.commands[words[1]] if len(words) > 1 else inner).params
    assert all(getattr(each, "help", None) for each in parameters), parameters
    done = command.run(*words, "-h")
    assert done.status == 0
    assert "Usage: mailbound" in done.out


@pytest.mark.parametrize("name", commands.ABOUT)
def test_a_group_says_in_whole_sentences_what_its_commands_do(name):
    done = command.run(name, "--help")
    assert done.status == 0
    assert "..." not in done.out.replace("[ARGS]...", "").replace("]...", "")


def test_the_version_is_that_of_the_package():
    from mailbound import __version__

    assert command.run("--version").out == f"mailbound {__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["activty"], "Did you mean 'activity'?"),
        (["activity", "strat"], "Did you mean 'start'?"),
        (["activity", "show"], "Missing argument"),
        (["bounce", "show", "x"], "NUMBER"),
        (["bounce", "list", "--kind", "x"], "'unrecognised'"),
        (["bounce", "list", "--limit", "0"], "--limit"),
        (["simulate", "--smtp-port", "70000"], "--smtp-port"),
        (["simulate", "--bounce-rate", "7"], "--bounce-rate"),
        (["simulate", "--delay", "-1"], "--delay"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_parsed_ends_with_2_and_is_named(words, said):
    done = command.run(*words)
    assert done.status == cli.INPUT_FAULT
    assert said in done.err


# --- configuration and output ------------------------------------------------------------------------------


EITHER_OR = {
    ("segment", "create"): ["--where", "true"],
    ("bounce", "undo"): ["1"],
    ("bounce", "discard"): ["1"],
    ("bounce", "drop"): ["1"],
    ("activity", "settle"): ["--sent"],
}


def arguments(words: tuple[str, ...]) -> Iterator[str]:
    """Give what a command cannot do without."""
    yield from EITHER_OR.get(words, [])
    group: Any = typer.main.get_command(cli.app)
    inner = group.commands[words[0]]
    for each in (inner.commands[words[1]] if len(words) > 1 else inner).params:
        if each.required:
            yield from each.opts if each.param_type_name == "option" else ()
            yield "1"  # a name, a number, an address


@pytest.mark.parametrize("words", [each for each in COMMANDS if each not in WITHOUT_CONFIG], ids=" ".join)
def test_without_a_configuration_the_status_is_78_and_the_file_is_named(words, tmp_path):
    done = command.run(*words, *arguments(words), config=tmp_path / "nowhere.toml")
    assert done.status == cli.CONFIG_FAULT, done
    assert done.err.startswith(f"{tmp_path}/nowhere.toml: there is no such file"), done


def test_every_fault_of_a_configuration_is_shown_at_once(tmp_path):
    (tmp_path / "config.toml").write_text('[log]\nlevel = "loud"\n[sending]\ngrace = "soon"\n')
    done = command.run("activity", "list", config=tmp_path / "config.toml")
    assert done.status == cli.CONFIG_FAULT
    assert {"log.level", "sending.grace"} <= {line.split(": ")[1] for line in done.err.splitlines()}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:////nowhere/mailbound.db", "/nowhere/mailbound.db: No such file or directory"),
        ("postgresql+psycopg://nobody@127.0.0.1:1/none", "Connection refused"),
    ],
)
def test_a_database_that_cannot_be_opened_is_one_line(url, said, tmp_path):
    with Box(tmp_path, url=url) as made:
        assert said in command.refused("activity", "list", config=made.folder / "config.toml")


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    with Box(tmp_path, url="sqlite:////proc/mailbound.db") as made:  # not even root may write there
        said = command.refused("activity", "list", config=made.folder / "config.toml")
        assert "/proc/mailbound.db" in said


def test_a_reader_that_leaves_early_is_no_fault(box):
    shell = f'"{PROGRAM[0]}" -m mailbound.cli simulate --catalogue | head -n 1'
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert (done.stdout.split()[0], done.stderr) == ("address", "")


def test_a_full_disk_is_one_line(box):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, "simulate", "--catalogue"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (cli.INPUT_FAULT, "mailbound: No space left on device\n")


def test_a_closed_output_is_no_fault(box):
    shell = f'"{PROGRAM[0]}" -m mailbound.cli simulate --catalogue >&-'
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- simulate ----------------------------------------------------------------------------------------------


def test_the_catalogue_says_what_each_address_does():
    said = command.run("simulate", "--catalogue").out
    assert "full@ " in said
    assert "the mailbox is full (5.2.2)" in said
    assert "Behaviour(" not in said


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = command.refused("simulate", "--smtp-port", port, "--pop3-port", "0")
    assert port in said
    assert "another program" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--form", "nix"], "'nix' is none of postfix"),
        (["--certificate", "/nowhere.pem"], "--certificate: /nowhere.pem: No such file"),
        (["--certificate", __file__], "holds no certificate"),
    ],
    ids=["form", "no file", "no certificate"],
)
def test_a_simulator_that_cannot_be_says_why(options, said):
    assert said in command.refused("simulate", "--smtp-port", "0", "--pop3-port", "0", *options)


# --- doctor and database -----------------------------------------------------------------------------------


def test_the_doctor_names_what_it_cannot_reach_and_ends_with_2(box):
    done = command.run("doctor", "--json", config=box.folder / "config.toml")
    states = {each["about"]: each["state"] for each in done.json}
    assert states == {
        "config": "good",
        "database": "good",
        "daemon": "warning",
        "tally": "good",
        "templates": "good",
        "main relay": "fault",
        "main mailbox": "fault",
        "main evidence": "good",
    }
    assert (done.status, done.err) == (cli.INPUT_FAULT, "mailbound: 2 faults; see above\n")


def test_the_doctor_looks_at_the_rest_though_the_database_is_away(tmp_path):
    with command.simulator() as (relay, mailbox):
        nobody = "postgresql+psycopg://nobody@127.0.0.1:1/none"
        with Box(tmp_path, url=nobody, outbound=relay, inbound=mailbox) as made:
            done = command.run("doctor", "--json", config=made.folder / "config.toml")
    states = {each["about"]: each["state"] for each in done.json}
    assert states == {"config": "good", "database": "fault", "main relay": "good", "main mailbox": "good"}


def test_the_doctor_sees_a_wrong_sum_a_broken_template_and_a_halted_run(tmp_path):
    with Box(tmp_path) as made:
        command.run("activity", "list", config=tmp_path / "config.toml")
        with made.database.begin() as connection:
            world = World(connection)
            run_id = world.run(world.activity("lost"), seconds=None)
            row = world.deliver(run_id, DeliveryState.ACCEPTED)
            world.connection.exec_driver_sql(f"DELETE FROM delivery WHERE id = {row.id}")
            world.connection.exec_driver_sql(
                f"UPDATE run SET state = '{RunState.HALTED}' WHERE id = {run_id}"
            )
        done = command.run("doctor", config=tmp_path / "config.toml")
    assert done.status == cli.INPUT_FAULT
    assert "accepted is tallied 1, counted 0" in done.out
    assert "template hello: there is no folder" in done.out
    assert "lost is halted" in done.out


def test_the_doctor_is_content_where_all_is_well(tmp_path):
    with command.simulator() as (relay, mailbox), Box(tmp_path, outbound=relay, inbound=mailbox) as made:
        done = command.run("doctor", config=made.folder / "config.toml")
    assert (done.status, done.err) == (0, "")
    assert "takes mail from us" in done.out
    assert "holds 0 mails" in done.out


def test_the_schema_is_upgraded_once(tmp_path):
    with Box(tmp_path):
        first = command.run("database", "upgrade", config=tmp_path / "config.toml")
        second = command.run("database", "upgrade", config=tmp_path / "config.toml")
    assert first.out.startswith("the schema went from nothing to ")
    assert second.out.startswith("the schema is at ")
