"""Jinja2, so that a template can read what it is given and do nothing else.

The sandbox keeps it from the attributes of Python and from changing anything. What is added here keeps it small:
a budget of loop steps and a limit on the size of every text that it makes, so that a slip of the pen cannot
stop the daemon.
"""

from __future__ import annotations

import contextvars
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any, TypeVar

import jinja2
from jinja2 import nodes
from jinja2.defaults import DEFAULT_NAMESPACE
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.runtime import markup_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from mailbound.template.outline import Outline

_T = TypeVar("_T")

LARGEST_OUTPUT = 1_000_000
"""How many characters one rendered part may have."""

_LARGEST_VALUE = 20_000  # characters of any text, items of any list that an expression makes
_LOOP_STEPS = 10_000  # all the loops of one rendering together
_WIDEST = 1_000  # the number that one of these filters may be given
_WIDENING = frozenset(["batch", "center", "indent", "slice"])
_WIDE_FORMAT = re.compile(r"\d{3}|\*")
_GROWING_METHODS = frozenset(
    [
        "center",
        "expandtabs",
        "format",
        "format_map",
        "join",
        "ljust",
        "replace",
        "rjust",
        "translate",
        "zfill",
    ]
)

_steps: contextvars.ContextVar[int] = contextvars.ContextVar("steps")


class Environment(ImmutableSandboxedEnvironment):
    """The sandbox of one template; it reads no file but those it is given."""

    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def __init__(self, files: Mapping[str, str], *, html: bool, trim: bool = True) -> None:
        """Take the files that `include` and `extends` may name; `html` escapes values."""
        super().__init__(
            loader=jinja2.DictLoader(files),
            autoescape=html,
            undefined=jinja2.StrictUndefined,
            trim_blocks=trim,
            lstrip_blocks=trim,
            cache_size=-1,
        )
        self.globals = GLOBALS
        self.filters = _FILTERS
        self._files = files

    @property
    def constants(self) -> frozenset[str]:
        """The texts that stand in the files outside of all tags."""
        parsed = (self.parse(source, name) for name, source in self._files.items())
        return frozenset(node.data for tree in parsed for node in tree.find_all(nodes.TemplateData))

    def outline(self, path: str) -> Outline | None:
        """Return the outline of a file, or None if it is no plain template."""
        return Outline.of(self.parse(self._files[path], path))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Return whether an expression may read `obj.attr`."""
        if isinstance(obj, str) and attr in _GROWING_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Return None, so that `format` and its kind are refused as attributes; there is a filter for them."""

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Return what `left operator right` is, of numbers or, with `+`, of short texts."""
        number = isinstance(left, int | float) and isinstance(right, int | float)
        if operator != "+" and not number:
            raise SecurityError(f"{operator} is only for numbers")
        if operator == "**" and not (abs(left) <= 1000 and abs(right) <= 100):
            raise SecurityError("this power is too large")
        return _checked(super().call_binop(context, operator, left, right))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Guard().visit(super()._parse(source, name, filename))
        return tree


class _Guard(NodeTransformer):
    """Sends every loop through `_counted` and every `~` through `_joined`."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 - Jinja2 looks for this name
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "_counted", [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "_joined", [], [], None, None, lineno=node.lineno)


def renew_budget() -> None:
    """Give the loops from now on a new number of steps."""
    _steps.set(_LOOP_STEPS)


def _counted(iterable: Iterable[Any]) -> list[Any]:
    left = _steps.get(_LOOP_STEPS)
    items = list(itertools.islice(iterable, left + 1))
    if len(items) > left:
        raise SecurityError(f"its loops take more than {_LOOP_STEPS:,} steps")
    _steps.set(left - len(items))
    return items


def _range(*bounds: int) -> range:
    return _checked(range(*bounds))


def _joined(parts: Iterable[Any]) -> str:
    return _checked(markup_join(parts))


def _checked(value: _T) -> _T:
    if isinstance(value, Sized) and len(value) > _LARGEST_VALUE:
        raise SecurityError(
            f"it makes a value of {len(value):,} characters or items; {_LARGEST_VALUE:,} are allowed"
        )
    return value


def _limited(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the filter `name`, refusing what would make its result too large."""
    values = 1 if hasattr(function, "jinja_pass_arg") else 0  # before them the context, if it wants one

    @functools.wraps(function)  # it also copies what Jinja2 notes on the function
    def limited(*arguments: Any, **named: Any) -> Any:
        options = (*arguments[values + 1 :], *named.values())
        if name in _WIDENING and any(isinstance(option, int) and option > _WIDEST for option in options):
            raise SecurityError(f"the filter {name} takes numbers up to {_WIDEST:,}")
        if name == "replace" and _growth(*map(str, arguments[values : values + 3])) > _LARGEST_VALUE:
            raise SecurityError("the filter replace would make the text too long")
        if name == "format" and _WIDE_FORMAT.search(str(arguments[values])):
            raise SecurityError("the filter format takes widths of at most two digits")
        return _checked(function(*arguments, **named))

    return limited


def _growth(text: str, old: str = "", new: str = "") -> int:
    return text.count(old) * len(new)


GLOBALS = {
    **{name: value for name, value in DEFAULT_NAMESPACE.items() if name != "lipsum"},
    "range": _range,
}
"""What every template can call without being given it."""

_FILTERS = {
    **{name: _limited(name, function) for name, function in FILTERS.items() if name != "pprint"},
    "_counted": _counted,
    "_joined": _joined,
}
