"""A plain template, taken apart: texts, names that stand for values, and choices by the truth of a name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Self

from jinja2 import nodes

HOLE = "\0"
"""No text of a plain template holds it, so that it can stand for a value."""

_MOST_ELIFS = 50  # each is looked into from the one before
_SPECIAL = frozenset(["self", "super"])  # Jinja2 gives them a meaning of its own


class Line(NamedTuple):
    """Texts with a named value between each two of them."""

    texts: tuple[str, ...]
    names: tuple[str, ...]


class _Name(NamedTuple):
    name: str


class _Choice(NamedTuple):
    name: str
    body: Sequence[_Node]
    otherwise: Sequence[_Node]


_Node = str | _Name | _Choice


class Outline:
    """What a plain template says, whichever way its choices go."""

    def __init__(self, body: Sequence[_Node]) -> None:
        """Take what stands in the template, in order."""
        self._body = body
        self.choices = tuple(dict.fromkeys(_asked(body)))
        """The names that it chooses by."""

    @classmethod
    def of(cls, tree: nodes.Template) -> Self | None:
        """Return the outline of a parsed template, or None if it is no plain one."""
        try:
            return cls(_body(tree.body))
        except _NotPlain:
            return None

    def line(self, truths: Mapping[str, bool]) -> Line:
        """Return what is left once all choices are made: `truths` holds each name that it chooses by."""
        texts, names = [""], list[str]()
        for node in _taken(self._body, truths):
            if isinstance(node, _Name):
                names.append(node.name)
                texts.append("")
            else:
                texts[-1] += node
        return Line(tuple(texts), tuple(names))


class _NotPlain(Exception):
    """There is more in the template than an outline can say."""


def _body(found: Sequence[nodes.Node]) -> list[_Node]:
    return [part for node in found for part in _parts(node)]


def _parts(node: nodes.Node) -> Iterator[_Node]:
    match node:
        case nodes.Output():
            yield from map(_piece, node.nodes)
        case nodes.If() if len(node.elif_) <= _MOST_ELIFS:
            otherwise = _body(node.else_)
            for each in reversed(node.elif_):
                otherwise = [_Choice(_name(each.test), _body(each.body), otherwise)]
            yield _Choice(_name(node.test), _body(node.body), otherwise)
        case _:
            raise _NotPlain


def _piece(node: nodes.Node) -> str | _Name:
    if not isinstance(node, nodes.TemplateData):
        return _Name(_name(node))
    if HOLE in node.data:
        raise _NotPlain
    return node.data


def _name(node: nodes.Node) -> str:
    if isinstance(node, nodes.Name) and node.name not in _SPECIAL:
        return node.name
    raise _NotPlain


def _asked(body: Sequence[_Node]) -> Iterator[str]:
    for node in body:
        if isinstance(node, _Choice):
            yield node.name
            yield from _asked(node.body)
            yield from _asked(node.otherwise)


def _taken(body: Sequence[_Node], truths: Mapping[str, bool]) -> Iterator[str | _Name]:
    for node in body:
        if isinstance(node, _Choice):
            yield from _taken(node.body if truths[node.name] else node.otherwise, truths)
        else:
            yield node
