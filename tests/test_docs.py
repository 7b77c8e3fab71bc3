"""The documents say what the program is: its commands, keys, events, states and simulated recipients.

What can be taken from the program is generated; after a change `MAILBOUND_DOCS=write pytest tests/test_docs.py`
writes it anew. What only a person can say, such as what to do about an event, is held to the program by its names.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel

import command as program
from mailbound import cli, lifecycle, segment, simulator
from mailbound.config import Config, accounts, rendering

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "daemon" / "mailbound"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OPERATING = (ROOT / "docs" / "OPERATING.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "ARCHITECTURE.md").read_text()

LEVELS = ("debug", "info", "warning", "error")
EVENT = re.compile(r"[a-z]+\.[a-z_]+")


# --- what the documents say -------------------------------------------------------------------------------


def section(text: str, title: str) -> str:
    """Return what stands below the heading `title`, with the headings below it."""
    start = re.search(rf"^(#+) {re.escape(title)}\n", text, re.MULTILINE)
    assert start, f"there is no heading {title!r}"
    following = re.compile(rf"^#{{1,{len(start[1])}}} ", re.MULTILINE).search(text, start.end())
    return text[start.end() : following.start() if following else len(text)]


def rows(text: str) -> list[list[str]]:
    """Return the rows of all tables in `text`, without their heads."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = table.splitlines()[2:]
        found += [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return found


def coded(text: str) -> list[str]:
    """Return what stands between backticks."""
    return re.findall(r"`([^`]+)`", text)


def named(table: list[list[str]]) -> dict[str, list[str]]:
    """Return the rows by the one code in their first cell."""
    names = [coded(row[0])[0] for row in table]
    assert len(set(names)) == len(names), "a name stands twice"
    return dict(zip(names, table, strict=True))


def shell_lines(text: str) -> Iterator[str]:
    """Give the lines of all shell blocks, continued ones joined."""
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()


# --- generated parts --------------------------------------------------------------------------------------


def all_commands() -> dict[str, Any]:
    """Return each command by the words that call it."""

    def walk(command: Any, *path: str) -> Iterator[tuple[str, Any]]:
        for name, inner in command.commands.items():
            if hasattr(inner, "commands"):
                yield from walk(inner, *path, name)
            else:
                yield " ".join((*path, name)), inner

    return dict(walk(typer.main.get_command(cli.app)))


COMMANDS = all_commands()


def arguments(command: Any) -> list[Any]:
    """Return the positional parameters of a command."""
    return [parameter for parameter in command.params if parameter.param_type_name == "argument"]


def options(command: Any) -> list[Any]:
    """Return the options of a command."""
    return [parameter for parameter in command.params if parameter.param_type_name == "option"]


def describe_commands() -> Iterator[str]:
    """Give the reference of all commands."""
    for path, command in COMMANDS.items():
        words = [_argument(parameter) for parameter in arguments(command)]
        yield f"### `{' '.join(['mailbound', path, *words])}`\n"
        yield re.sub(r"(?<!\n)\n(?!\n)", " ", command.help.strip()) + "\n"
        said = [f"- `{_argument(parameter)}`: {parameter.help}" for parameter in arguments(command)]
        said += [f"- {_option(parameter)}: {_meaning(parameter)}" for parameter in options(command)]
        if said:
            yield "\n".join(said) + "\n"


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.required else f"[{name}]"


def _option(parameter: Any) -> str:
    value = "" if parameter.is_flag else f" {parameter.metavar or 'VALUE'}"
    names = ", ".join(f"`{name}{value}`" for name in (*parameter.opts, *parameter.secondary_opts))
    return f"{names} (required)" if parameter.required else names


def _meaning(parameter: Any) -> str:
    given = not parameter.is_flag and parameter.default not in {None, ""} and parameter.show_default
    return f"{parameter.help} [default: {parameter.default}]" if given else parameter.help


def describe_catalogue() -> Iterator[str]:
    """Give the table of the simulator's recipients."""
    yield "| local part | what it does |\n|---|---|"
    for name, behaviour in simulator.CATALOGUE.items():
        yield f"| `{name}` | {behaviour.about} |"


def describe_forms() -> Iterator[str]:
    """Give the forms of the simulator's reports."""
    yield ", ".join(f"`{form}`" for form in simulator.FORMS)


def describe_states(table: Mapping[Any, Mapping[Any, Any]]) -> Iterator[str]:
    """Give a transition table: a line for each state, and what each event makes of it."""
    yield "| state | event → next state |\n|---|---|"
    for state, steps in table.items():
        after = ", ".join(f"{event} → {following}" for event, following in steps.items())
        yield f"| `{state}` | {after or 'final'} |"


def describe_explained() -> Iterator[str]:
    """Give what `bounce explain` says of a bounce."""
    mail = (ROOT / "tests" / "mails" / "postfix-user-unknown.eml").read_bytes()
    said = program.run("bounce", "explain", "-", config=Path("/nowhere/config.toml"), stdin=mail).out
    yield f"```text\n{said.rstrip()}\n```".replace("/nowhere/", "")


GENERATED = {
    ("OPERATING.md", "explained"): describe_explained,
    ("OPERATING.md", "commands"): describe_commands,
    ("OPERATING.md", "catalogue"): describe_catalogue,
    ("OPERATING.md", "forms"): describe_forms,
    ("STATES.md", "run"): lambda: describe_states(lifecycle.RUN),
    ("STATES.md", "delivery"): lambda: describe_states(lifecycle.DELIVERY),
}


@pytest.mark.parametrize(("name", "part"), GENERATED, ids=lambda value: value)
def test_generated_parts_are_what_the_program_says(name, part):
    path = ROOT / "docs" / name
    wanted = "\n".join(GENERATED[name, part]()).strip()
    if os.environ.get("MAILBOUND_DOCS") == "write":
        path.write_text(_block(part).sub(lambda match: match[1] + wanted + match[3], path.read_text()))
    found = _block(part).search(path.read_text())
    assert found, f"{name} has no part <!-- {part} -->"
    assert found[2].splitlines() == wanted.splitlines()


def _block(part: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {part}: generated -->\n\n)(.*?)(\n\n<!-- end of {part} -->)", re.DOTALL)


# --- commands in the documents ----------------------------------------------------------------------------


def said_commands() -> list[tuple[str, list[str]]]:
    """Return the words after `mailbound` of each command that the documents give, with the document's name."""
    found = []
    for path in DOCUMENTS:
        text = path.read_text()
        inline = [code for code in re.findall(r"(?<!`)`([^`\n]+)`", text) if "…" not in code]
        for line in (*inline, *shell_lines(text)):
            words = re.sub(r"^(sudo |[A-Z_]+=\S* )*", "", line).split(" ", 1)
            if words[0].rpartition("/")[2] == "mailbound" and len(words) == 2:
                found.append((path.name, shlex.split(words[1], comments=True)))
    return found


def test_every_command_that_a_reader_may_type_exists():
    groups = {path.split()[0] for path in COMMANDS}
    said = said_commands()
    assert {document for document, _ in said} >= {"README.md", "OPERATING.md"}
    for document, words in said:
        called = next((path for path in COMMANDS if path.split() == words[: len(path.split())]), None)
        assert called or words[0] in groups | {"--help"}, f"{document}: {words}"
        parameters = COMMANDS[called].params if called else []
        known = {name for each in parameters for name in (*each.opts, *each.secondary_opts)} | {"--help"}
        used = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert used <= known, f"{document}: {words}"


# --- configuration ----------------------------------------------------------------------------------------


def keys(model: type[BaseModel] = Config, place: str = "") -> Iterator[tuple[str, str]]:
    """Give every key of config.toml with its default as it is written there."""
    for name, key in model.model_fields.items():
        here = f"{place}{key.alias or name}"
        inner = _section(key.annotation)
        if inner is not None:
            yield from keys(inner, f"{here}.NAME." if here == "stores" else f"{here}.")
        else:
            yield here, _default(model, name, key)


def _section(annotation: Any) -> type[BaseModel] | None:
    candidates = [annotation, *get_args(annotation)]
    return next((each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)), None)


def _default(model: type[BaseModel], name: str, key: Any) -> str:
    if name == "port" and issubclass(model, accounts.Account):
        return ", ".join(f"{port} ({tls})" for tls, port in model.usual_ports.items())
    if key.is_required():
        return "required"
    default = key.get_default(call_default_factory=True)
    return "unset" if default is None else f"`{rendering._written(default, key)}`"


def test_every_key_of_the_configuration_stands_there_with_its_default_and_meaning():
    table = named(rows(section(OPERATING, "Configuration")))
    assert {key: row[1] for key, row in table.items()} == dict(keys())
    assert [key for key, row in table.items() if len(row[2]) < 10] == []


# --- the log ----------------------------------------------------------------------------------------------


@dataclass
class Said:
    """What the code says with one event, wherever it does."""

    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)
    more: set[str] = field(default_factory=set)  # what may stand in fields that are handed over as a dict


def levels_in(node: ast.AST) -> set[str]:
    """Return the levels of the log's methods that are named in `node`."""
    named = {
        f"{inner.value.id}.{inner.attr}"
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name)
    }
    each = {"info"} if "logs.info_each" in named else set()
    return {level for level in LEVELS if f"log.{level}" in named} | each


def events() -> dict[str, Said]:
    """Return every event that the package logs, by reading its code."""
    found: dict[str, Said] = {}
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for call, name, levels in _logging_calls(tree):
            said = found.setdefault(name, Said())
            said.levels |= levels
            said.fields |= {keyword.arg for keyword in call.keywords if keyword.arg}
            if any(keyword.arg is None for keyword in call.keywords) or len(call.args) > 1:
                said.more |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
                said.more |= {state.value for state in lifecycle.DeliveryState}
        for record in (node for node in ast.walk(tree) if isinstance(node, ast.Dict)):
            fixed = {_text(key): _text(value) for key, value in zip(record.keys, record.values, strict=True)}
            if EVENT.fullmatch(fixed.get("event", "")):
                said = found.setdefault(fixed["event"], Said())
                said.levels.add(fixed["level"])
                said.fields |= fixed.keys() - {"event", "level"}
    return found


def _logging_calls(tree: ast.Module) -> Iterator[tuple[ast.Call, str, set[str]]]:
    """Give the calls that log: of a method of the log, of a variable that holds one, of a `partial` of one."""
    aliases = {
        target.id: levels_in(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and levels_in(node.value)
    }
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        texts = [_text(argument) for argument in call.args[:2]]
        name = next((text for text in texts if EVENT.fullmatch(text)), "")
        by_alias = aliases.get(call.func.id, set()) if isinstance(call.func, ast.Name) else set()
        levels = levels_in(call.func) | by_alias
        if call.args and ast.unparse(call.func).endswith("partial"):
            levels |= levels_in(call.args[0])
        assert bool(levels) <= bool(name), f"an event that is no constant: {ast.unparse(call)}"
        if name and levels:
            yield call, name, levels


def _text(node: ast.AST | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


LOGGED = events()
CATALOGUE = named(rows(section(OPERATING, "Log events")))


def test_the_catalogue_of_events_is_that_of_the_code():
    assert sorted(CATALOGUE) == sorted(LOGGED)


@pytest.mark.parametrize("event", sorted(LOGGED))
def test_an_event_stands_there_with_its_levels_its_fields_and_what_to_do(event):
    said = LOGGED[event]
    _, levels, fields, meaning = CATALOGUE[event]
    assert set(re.split(r"[, ]+", levels)) == said.levels
    told = set(coded(fields))
    own = said.fields - {"exc_info"}
    assert own <= told, "a field is not told"
    assert told - own <= said.more, "a field is told that the code does not write"
    assert len(meaning) > 10


def test_events_are_found_however_they_are_logged():
    code = """
tell = log.error if bad else log.warning
tell("relay.failed", why=why)
later = functools.partial(log.info, "delivery.accepted")
log.debug("run.started", run=1)
"""
    found = {name: levels for _, name, levels in _logging_calls(ast.parse(code))}
    assert found == {
        "relay.failed": {"error", "warning"},
        "delivery.accepted": {"info"},
        "run.started": {"debug"},
    }


# --- templates and segments -------------------------------------------------------------------------------


def test_the_values_of_a_template_are_those_that_the_composer_gives():
    tree = ast.parse((PACKAGE / "outbound" / "composer.py").read_text())
    given = {_text(key) for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys} - {""}
    table = section(OPERATING, "Lists, segments, templates").partition("| value |")[2]
    assert {coded(row[0])[0] for row in rows(f"| value |{table}")} == given


def test_the_columns_of_a_condition_are_those_that_a_segment_knows():
    said = re.search(r"The columns are (.*?)\.", section(OPERATING, "Lists, segments, templates"), re.DOTALL)
    assert set(coded(said[1])) == set(segment._COLUMNS)


# --- the rest ---------------------------------------------------------------------------------------------


def test_the_exit_codes_are_those_of_the_program():
    table = named(rows(section(OPERATING, "Exit codes")))
    assert {"0", str(cli.INPUT_FAULT), str(cli.CONFIG_FAULT)} <= table.keys()


def test_the_layers_are_those_that_import_linter_holds():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [set(re.findall(r"\w+", layer)) for layer in contracts[0]["layers"]]
    assert [set(coded(row[1])) for row in rows(section(ARCHITECTURE, "Layers"))] == layers


def test_the_states_of_the_crash_tables_exist():
    names = {*map(str, lifecycle.DeliveryState), *map(str, lifecycle.RunState), "new", "read", "poison"}
    for title in ("If it dies while sending", "If it dies while reading bounces"):
        states = {state for row in rows(section(ARCHITECTURE, title)) for state in coded(row[1])}
        assert states
        assert states <= names


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path):
    text = path.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file) if file else path
        assert linked.exists(), target
        assert not anchor or anchor in _anchors(linked.read_text()), target


def _anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
