"""`mailbound template`: make templates, and see whether they fit the people they are for."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mailbound.cli import terminal
from mailbound.errors import InputError

if TYPE_CHECKING:
    from mailbound.template import Template

app = typer.Typer(no_args_is_help=True, help="Make and check templates.")

_SHOWN = 5


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the new folder.")],
) -> None:
    """Make a folder with a small working template, to be changed."""
    from mailbound import config, samples

    if not re.fullmatch(r"\w[\w.-]{0,63}", name):
        raise InputError(f"{name!r} is no good name for a folder: use letters, digits, hyphens and dots")
    folder = config.load(context.obj).templates.folder / name
    if folder.exists():
        raise InputError(f"{folder} exists already")
    samples.write_template(folder)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    terminal.say(f"wrote {folder}: {', '.join(files)}")


@app.command()
def check(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The template's folder.")],
    *,
    segment: Annotated[
        str | None, typer.Option(metavar="NAME", help="Render it for the recipients in this segment.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(metavar="NAME", help="As this store would send it [default: the first].")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="COUNT", help="For how many of them; 0: all.", min=0)] = 1000,
) -> None:
    """Read a template, and render it for real recipients.

    What is missing for whom is listed, and the exit status is 2 if something is. Nothing is sent.
    """
    from mailbound import config
    from mailbound.template import Template

    settings = config.load(context.obj)
    folder: Path = settings.templates.folder / name
    template = Template.load(folder)
    if segment is None:
        terminal.say(f"{folder} can be read; --segment NAME renders it for recipients")
        return
    sender = settings.stores.get(store or next(iter(settings.stores)))
    if sender is None:
        raise InputError(f"there is no store {store!r}; there are: {', '.join(settings.stores)}")
    faults, people = _render_for_all(context, template, segment, sender.name, limit)
    if not people:
        raise InputError(f"nobody is in segment {segment}, so there was nobody to render {name} for")
    for fault, who in sorted(faults.items(), key=lambda pair: -len(pair[1])):
        shown = ", ".join(who[:_SHOWN]) + (", …" if len(who) > _SHOWN else "")
        terminal.say(f"{len(who):>7,}  {fault} ({shown})")
    if faults:
        count = len(Counter(person for who in faults.values() for person in who))
        raise InputError(f"{name} cannot be filled for {count:,} of {people:,} recipients in {segment}")
    terminal.say(f"{name} can be filled for {_all(people, limit)} in {segment}")


def _all(people: int, limit: int) -> str:
    """Return who was tried; those beyond the limit were not."""
    return f"the first {people:,} recipients" if people == limit else f"all {people:,} recipients"


def _render_for_all(
    context: typer.Context, template: Template, segment: str, store: str, limit: int
) -> tuple[dict[str, list[str]], int]:
    """Return the faults, each with the external ids of those whom it concerns, and how many people were tried."""
    from mailbound.database import segments
    from mailbound.template import TemplateFault

    faults: dict[str, list[str]] = {}
    people = 0
    with terminal.open_database(context) as database, database.look() as connection:
        for person in segments.each(connection, segments.find(connection, segment), limit=limit or None):
            people += 1
            values = {
                **person.attributes,
                "external_id": person.external_id,
                "address": person.address,
                "name": person.name,
                "locale": person.locale,
                "unsubscribe_url": "https://example.com/u/",
                "store": store,
                "activity": "",
            }
            try:
                template.render(values)
            except TemplateFault as fault:
                faults.setdefault(str(fault), []).append(person.external_id)
    return faults, people
