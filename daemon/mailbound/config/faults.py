"""Faults in the words of the operator: the key, what is wrong with it, and the mend."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from mailbound.config.quantities import nearest, quote
from mailbound.config.section import SectionFaults
from mailbound.config.sections import Config

Place = tuple[str, ...]
Fault = tuple[Place, str]
"""A key by its place in the file, and what is wrong with it."""

_SECRET_WORDS = re.compile(r"passw|secret|token$|api_?key", re.IGNORECASE)
_WRONG_KIND = {
    "bool_type": "is not a truth value; write true or false, without quotes",
    "dict_type": "is not a table",
    "model_type": "is not a table",
}


def translate(error: ErrorDetails) -> Iterator[Fault]:
    """Give the faults that an error of pydantic stands for."""
    place = tuple(str(part) for part in error["loc"])
    kind = error["type"]
    if kind != "extra_forbidden" and place[-1] == "[key]":  # pydantic's word for a fault of the key itself
        place = place[:-1]
    context = error.get("ctx", {})
    if kind == "value_error" and isinstance(context["error"], SectionFaults):
        yield from (((*place, key), text) for key, text in context["error"].findings)
    elif kind == "value_error":
        yield place, str(context["error"])
    elif kind == "missing":
        yield place, _missing(place)
    elif kind == "extra_forbidden":
        yield place, _unknown(place)
    elif kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        hint = nearest(error["input"], known) if isinstance(error["input"], str) else ""
        yield place, f"{quote(error['input'])} is not one of {', '.join(known)}{'; ' + hint if hint else ''}"
    else:
        yield place, f"{quote(error['input'])} {_WRONG_KIND.get(kind, error['msg'])}"


def _missing(place: Place) -> str:
    model = _model_at(place)
    if model is None:
        return "it is missing"
    table = dotted(("stores", "NAME")) if place == ("stores",) else dotted(place)
    return f"the table is missing; write [{table}]"


def _unknown(place: Place) -> str:
    parent = _model_at(place[:-1])
    known = [field.alias or name for name, field in parent.model_fields.items()] if parent else []
    if _SECRET_WORDS.search(place[-1]):
        credential = "password_credential"
        hint = f'; use {credential} = "NAME"' if credential in known else ""
        return f"a secret does not stand in this file{hint}"
    what = "section" if len(place) == 1 else "key"
    return f"there is no such {what}; {nearest(place[-1], known) or 'there are ' + ', '.join(known)}"


def _model_at(place: Place) -> type[BaseModel] | None:
    """Return the section that stands at `place`; for `stores` itself, what each store is."""
    annotation: Any = Config
    for part in place:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            fields = {field.alias or name: field for name, field in annotation.model_fields.items()}
            if part not in fields:
                return None
            annotation = fields[part].annotation
        else:  # dict[str, Store]
            annotation = get_args(annotation)[1] if len(get_args(annotation)) == 2 else None
    if place == ("stores",):
        annotation = get_args(annotation)[1]
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def dotted(place: Sequence[str]) -> str:
    """Return the dotted key of `place`, as TOML writes it."""
    return ".".join(
        part
        if re.fullmatch(r"[A-Za-z0-9_-]+", part)
        else json.dumps(part, ensure_ascii=not part.isprintable())
        for part in place
    )
