"""From the text of a condition to sqlglot's tree, and from a node of it to the place where it stands."""

from __future__ import annotations

import re

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, TokenError

_LONGEST = 20_000  # characters
_MOST_TERMS = 500  # SQLite stops at an expression 1000 deep, and a chain of OR is as deep as it is long
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_UNCLOSED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|/\*.*?\*/|--[^\n]*|(['"]|/\*)""", re.DOTALL)

# Every kind of node that a condition may hold, with all that may be said in it: sqlglot keeps a NOT or an
# option now in a node of its own, now in a further argument; what is unknown must not be lost in silence.
_GRAMMAR: dict[type[exp.Expr], set[str]] = {
    **{joined: {"this", "expression"} for joined in (exp.And, exp.Or)},
    **{prefixed: {"this"} for prefixed in (exp.Not, exp.Paren, exp.Neg)},
    **{test: {"this", "expression"} for test in (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Is)},
    exp.Like: {"this", "expression", "negate"},
    exp.Between: {"this", "low", "high"},
    exp.In: {"this", "expressions"},
    exp.Column: {"this", "table"},
    exp.Identifier: {"this", "quoted"},
    exp.Literal: {"this", "is_string"},
    exp.Boolean: {"this"},
    exp.Null: set(),
    exp.Cast: {"this", "to"},  # DATE '2026-01-01'
    exp.DataType: {"this"},
}
_ALLOWED = "compare names with values by = <> < <= > >= IN BETWEEN LIKE IS NULL, join with AND OR NOT"


class Unusable(Exception):
    """Something that a condition may not hold, and the offset where it stands; it never leaves this package."""

    def __init__(self, message: str, where: int | exp.Expr) -> None:
        """Keep the message, to be joined with the position."""
        super().__init__(message)
        self.offset = where if isinstance(where, int) else _offset(where)


def read(condition: str) -> exp.Expr:
    """Return the tree of `condition`. Raises Unusable, and RecursionError if it is nested too deeply."""
    if not condition.strip():
        raise Unusable("it is empty; write for example country = 'DE', or true for everybody", 0)
    if len(condition) > _LONGEST:
        raise Unusable(f"it has more than {_LONGEST:,} characters; import a fixed list instead", _LONGEST)
    if control := _CONTROL.search(condition):
        raise Unusable("a control character is not allowed", control.start())
    try:
        tree = sqlglot.parse_one(condition, into=exp.Condition)
    except TokenError:
        unclosed = (found.start() for found in _UNCLOSED.finditer(condition) if found[1])
        raise Unusable("this quote or comment is never closed", next(unclosed, 0)) from None
    except ParseError as error:
        raise _unreadable(condition, error) from None
    if sum(1 for _ in tree.find_all(exp.Connector)) >= _MOST_TERMS:
        raise Unusable(f"it has more than {_MOST_TERMS} terms; use IN (...), or import a fixed list", 0)
    for node in tree.walk():
        said = {name for name, value in node.args.items() if value or value == []}
        if type(node) not in _GRAMMAR or said - _GRAMMAR[type(node)]:
            raise Unusable(refusal(node), node)
    return tree


def _unreadable(condition: str, error: ParseError) -> Unusable:
    if not error.errors:
        return Unusable("it cannot be read", 0)
    first = error.errors[0]
    lines = condition.split("\n")[: first["line"] - 1]
    end = sum(len(line) + 1 for line in lines) + first["col"]  # where the offending token ends
    offset = max(end - len(first["highlight"] or ""), 0)
    description = first["description"]
    if description.startswith(("Expecting", "Required keyword")):
        missing = (
            description.removeprefix("Expecting ") if description.startswith("Expecting") else "something"
        )
        return Unusable(f"{missing} is missing after this", offset)
    return Unusable(f"{first['highlight']} is not understood here", offset)


def position(condition: str, offset: int) -> str:
    """Return `offset` as a person counts: `column 17`, with a line if there are several."""
    line_start = condition.rfind("\n", 0, offset) + 1
    column = f"column {offset - line_start + 1}"
    return f"line {condition.count(chr(10), 0, offset) + 1}, {column}" if "\n" in condition else column


def _offset(node: exp.Expr) -> int:
    """Return where `node` begins, as far as sqlglot tells: only names, functions and literals know."""
    starts = [inner.meta["start"] for inner in node.walk() if "start" in inner.meta]
    if not starts and node.parent is not None:
        return _offset(node.parent)
    return min(starts, default=0)


def refusal(node: exp.Expr) -> str:
    """Return why `node` is not taken, and what is."""
    match node:
        case exp.Anonymous():
            what = f"the function {node.name}()"
        case exp.Func() if not isinstance(node, exp.Cast | exp.Case):
            what = f"the function {node.sql_name().lower()}()"
        case exp.ILike():
            return "ILIKE is not allowed here; write LIKE, which ignores case already"
        case exp.EQ() | exp.NEQ() | exp.LT() | exp.LTE() | exp.GT() | exp.GTE() | exp.NullSafeEQ():
            what = "this comparison"
        case exp.Is():
            what = f"IS {node.expression.sql()}"
        case exp.Column():
            return f"{node.sql()} is no name; write country, or attributes.country"
        case exp.Select() | exp.Subquery() | exp.In():
            what = "a query"
        case exp.Literal() | exp.Null():
            what = f"{node.sql()} alone"
        case _:
            what = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(node).__name__).upper()
    return f"{what} is not allowed here; {_ALLOWED}"
