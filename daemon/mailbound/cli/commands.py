"""Which commands there are. Each module is imported only when its command is called, so that help comes at once."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping
from typing import Any

import typer
from typer.core import TyperGroup

ABOUT = {
    "demo": "Play the whole job in half a minute, on this machine alone.",
    "run": "Run the daemon.",
    "simulate": "Run a relay and a mailbox whose recipients bounce on request.",
    "config": "Check, show and explain the configuration; signing keys.",
    "recipient": "Import recipients, look at one, change what they wish.",
    "segment": "Name conditions over recipients, or fixed lists of them.",
    "template": "Make and check templates.",
    "activity": "Plan e-mail activities, and steer those under way.",
    "bounce": "Look at what came back, and at what it means.",
    "report": "What was sent, what bounced and why: as tables, JSON or CSV.",
    "logs": "Show the log, or follow it.",
    "doctor": "Check database, templates, relays and mailboxes.",
    "database": "Look after the database.",
}
"""The commands in the order in which a newcomer meets them, each named like its module."""


class Commands(TyperGroup):
    """The command `mailbound`, whose help needs none of its modules."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Take the commands from `ABOUT`."""
        super().__init__(*args, **options)
        self.commands = _Loaded()

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - it overrides
        """Return the names in the order of `ABOUT`."""
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - it overrides
        """Write the list of commands for `--help`."""
        with formatter.section("Commands"):
            formatter.write_dl(list(ABOUT.items()))


class _Loaded(MutableMapping[str, Any]):
    """The commands by name, each made when somebody asks for it."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in ABOUT:
            raise KeyError(name)
        if name not in self._made:
            self._made[name] = _load(name)
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        del self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(ABOUT)

    def __len__(self) -> int:
        return len(ABOUT)


def _load(name: str) -> Any:
    """Return the command in the module of that name: its `app`, else the function of that name."""
    module = importlib.import_module(f"mailbound.cli.{name}")
    holder = typer.Typer(add_completion=False, rich_markup_mode=None)
    holder.callback()(lambda: None)
    if hasattr(module, "app"):
        holder.add_typer(module.app, name=name)
    else:
        holder.command(name)(getattr(module, name))
    group: Any = typer.main.get_command(holder)
    return group.commands[name]
