"""Reading config.toml: every fault is found in one go, each on one line with file, key and mend."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from mailbound.config import secrets as credentials
from mailbound.config.faults import Fault, Place, dotted, translate
from mailbound.config.quantities import quote
from mailbound.config.section import Surroundings
from mailbound.config.sections import Config
from mailbound.errors import ConfigError

Tree = dict[str, Any]

_SYNTAX = {
    "Cannot overwrite a value": "this key is there already",
    "Cannot declare": "this table is there already",
    "Expected newline or end of document": "the value goes on; texts, durations and sizes need quotes",
    "Illegal character '\\n'": "the text has no closing quote",
    "Invalid statement": "this is neither a key = value, nor a [table], nor a # comment",
    "Invalid value": "this is no value; texts, durations and sizes need quotes",
    "Unterminated string": "the text has no closing quote",
}


def load(path: Path, *, secrets: bool = False, environment: Mapping[str, str] = os.environ) -> Config:
    """Return the configuration in the file `path`. Raises ConfigError with one line for each of its faults.

    Secrets are taken where they are at hand; with `secrets` a missing one is a fault as well. Relative paths
    begin at the file's folder, the SQLite file's at `$STATE_DIRECTORY` where systemd gives one.
    """
    tree = _read(path)
    tree |= {name: tree.get(name, {}) for name in Config.model_fields if name != "stores"}
    faults = [*_shared_mailboxes(tree)]
    found, missing = _secrets(tree, environment)
    if secrets:
        faults += [*missing, *_missing_commands(tree)]
    folder = path.absolute().parent
    surroundings = Surroundings(folder, _state_folder(folder, environment), found)
    try:
        config = Config.model_validate(tree, context=surroundings, by_alias=True, by_name=False)
    except ValidationError as error:
        faults = [*(fault for detail in error.errors() for fault in translate(detail)), *faults]
    if faults:
        order = _order(tree)
        faults.sort(key=lambda fault: order.get(fault[0], order.get(fault[0][:-1], len(order))))
        raise ConfigError([f"{path}: {dotted(place)}: {text}" for place, text in faults])
    return config


def _read(path: Path) -> Tree:
    """Return the tables of the file. Raises ConfigError if it cannot be read or is no TOML."""
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        fault = "there is no such file; name one with --config or MAILBOUND_CONFIG"
    except OSError as error:
        fault = f"it cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        fault = f"line {line}: it is not UTF-8"
    except tomllib.TOMLDecodeError as error:
        fault = _syntax(str(error))
    except RecursionError:
        fault = "it is nested too deeply"
    raise ConfigError([f"{path}: {fault}"])


def _syntax(message: str) -> str:
    """Return what is wrong and where, from the words of tomllib: "What (at line 1, column 2)"."""
    what, _, place = message.removesuffix(")").rpartition(" (at ")
    known = next((mend for words, mend in _SYNTAX.items() if what.startswith(words)), ascii(what)[1:-1])
    return f"{place}: {known}"


def _state_folder(folder: Path, environment: Mapping[str, str]) -> Path:
    """Return where the SQLite file lies if its path is relative.

    /etc/NAME belongs to the administrator and is read-only for the daemon; its state lies in /var/lib/NAME
    (FHS §5.8), which is also what systemd gives: so the daemon and the command line find the same file.
    """
    if given := environment.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    if folder.parent == Path("/etc"):
        return Path("/var/lib") / folder.name
    return folder


# Faults that need more than one section are sought in the raw tables, so that no other fault hides them.


def _tables(tree: Tree, *names: str) -> Iterator[tuple[Place, Tree]]:
    """Give the tables called `names` of each store, with their places."""
    stores = tree.get("stores")
    for store, table in stores.items() if isinstance(stores, dict) else ():
        for name in names:
            if isinstance(table, dict) and isinstance(table.get(name), dict):
                yield ("stores", store, name), table[name]


def _shared_mailboxes(tree: Tree) -> Iterator[Fault]:
    """Give the mailboxes and addresses that a store shares with one before it: each took the other's mail."""
    owners: dict[tuple[str, ...], str] = {}
    for place, table in _tables(tree, "inbound"):
        mailbox = [str(table.get(key)).lower() for key in ("host", "port", "username")]
        mailbox.append(str(table.get("folder", "INBOX")))
        for key, claim in (("username", tuple(mailbox)), ("address", (str(table.get("address")).lower(),))):
            owner = owners.setdefault(claim, place[1])
            if owner != place[1] and key in table:
                what = "mailbox" if key == "username" else "address"
                yield (*place, key), f"stores.{owner} has this {what} already; each store needs its own"


def _secrets(tree: Tree, environment: Mapping[str, str]) -> tuple[dict[str, SecretStr], list[Fault]]:
    """Return the secrets that are at hand, by name, and a fault for each that is not."""
    found, missing = {}, []
    database = tree["database"] if isinstance(tree["database"], dict) else {}
    for place, table in (("database",), database), *_tables(tree, "outbound", "inbound"):
        name = table.get("password_credential")
        if isinstance(name, str) and re.fullmatch(r"[\w-]+", name):
            try:
                found[name] = credentials.read(name, environment=environment)
            except ValueError as error:
                missing.append(((*place, "password_credential"), str(error)))
    return found, missing


def _missing_commands(tree: Tree) -> Iterator[Fault]:
    for place, table in _tables(tree, "outbound", "inbound"):
        command = table.get("token_command")
        program = command[0] if isinstance(command, list) and command else None
        if isinstance(program, str) and program.startswith("/") and not os.access(program, os.X_OK):
            yield (*place, "token_command"), f"{quote(program)} is not a program that can be run"


def _order(tree: Tree, place: Place = ()) -> dict[Place, int]:
    """Return where each key stands in the file, so that faults are told in its order."""
    order: dict[Place, int] = {}
    pending: list[tuple[Place, Any]] = [(place, tree)]
    while pending:
        here, value = pending.pop()
        order[here] = len(order)
        if isinstance(value, dict):
            pending += reversed([((*here, key), inner) for key, inner in value.items()])
    return order
