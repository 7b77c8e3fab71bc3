"""A segment's condition: a SQL boolean expression, read by sqlglot and rebuilt with bound values.

Nothing of the text reaches the database: each node is looked up in a closed list and made anew. The result is
the same on SQLite and PostgreSQL:

- The literal decides how an attribute is compared: as a number, as text (bytewise, so ISO dates sort) or as a
  boolean. An attribute that is missing, or of another type, compares as NULL: neither `=` nor `<>` finds it.
- Numbers are compared as IEEE 754 doubles.
- LIKE ignores the case of ASCII letters; a backslash makes the next `%`, `_` or backslash literal.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import idna
from sqlalchemy import Boolean, ColumnElement, Text, and_, func, literal, not_, or_, select
from sqlglot import exp

from mailbound.database import tables
from mailbound.errors import InputError
from mailbound.segment import engines, syntax
from mailbound.segment.syntax import Unusable, refusal

_ATTRIBUTE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ .-]*")  # what both engines find by the same path
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_DATE_TYPES = {exp.DType.DATE, exp.DType.TIMESTAMP, exp.DType.TIMESTAMPTZ}

_Value = str | float | bool
_Compare = Callable[[Any, Any], ColumnElement[bool]]
_OPERATORS: dict[type[exp.Expr], _Compare] = {
    exp.EQ: operator.eq,
    exp.NEQ: operator.ne,
    exp.LT: operator.lt,
    exp.LTE: operator.le,
    exp.GT: operator.gt,
    exp.GTE: operator.ge,
}
_MIRRORED: dict[_Compare, _Compare] = {  # 5 < x is x > 5
    operator.lt: operator.gt,
    operator.le: operator.ge,
    operator.gt: operator.lt,
    operator.ge: operator.le,
}


def parse(condition: str) -> ColumnElement[bool]:
    """Return `condition` as an expression over `tables.recipient`.

    Raises InputError with the position of what is not allowed, and with what to write instead.
    """
    try:
        return _predicate(syntax.read(condition))
    except Unusable as fault:
        raise InputError(f"segment condition, {syntax.position(condition, fault.offset)}: {fault}") from None
    except RecursionError:
        raise InputError("segment condition: it is nested too deeply; use fewer parentheses") from None


def _predicate(node: exp.Expr) -> ColumnElement[bool]:
    """Return what is true, false or unknown (NULL) about a recipient."""
    match node:
        case exp.Paren():
            return _predicate(node.this)
        case exp.And():
            return and_(*map(_predicate, node.flatten()))
        case exp.Or():
            return or_(*map(_predicate, node.flatten()))
        case exp.Not():
            return not_(_predicate(node.this))
        case exp.Boolean():
            return literal(node.this, Boolean) == literal(True, Boolean)
        case exp.Column():  # a name alone: `vip and not paused`
            return _compare(operator.eq, node, True, node)
    return _test(node)


def _test(node: exp.Expr) -> ColumnElement[bool]:
    """Return a comparison of one name with a value, or with several."""
    match node:
        case exp.Binary() if type(node) in _OPERATORS:
            return _comparison(node)
        case exp.Between():
            low, high = node.args["low"], node.args["high"]
            at_least = _compare(operator.ge, node.this, _value(low), low)
            return and_(at_least, _compare(operator.le, node.this, _value(high), high))
        case exp.In() if node.expressions:
            return _membership(node)
        case exp.In():
            raise Unusable("the list after IN is empty", node)
        case exp.Like():
            return _like(node)
        case exp.Is() if isinstance(node.expression, exp.Null):
            return _is_null(_name(node.this))
    raise Unusable(refusal(node), node)


def _comparison(node: exp.Binary) -> ColumnElement[bool]:
    compare, name, value = _OPERATORS[type(node)], node.this, node.expression
    if not isinstance(name, exp.Column) and isinstance(value, exp.Column):
        compare, name, value = _MIRRORED.get(compare, compare), value, name
    return _compare(compare, name, _value(value), value)


def _compare(compare: _Compare, name: exp.Expr, value: _Value, where: exp.Expr) -> ColumnElement[bool]:
    if isinstance(value, bool) and compare not in {operator.eq, operator.ne}:
        raise Unusable("true and false are compared with = or <>", where)
    bound = _bound(_name(name), value, where)
    operand = _operand(_name(name), type(value))
    return compare(operand, literal(bound, operand.type))


def _membership(node: exp.In) -> ColumnElement[bool]:
    name = _name(node.this)
    groups: dict[type, list[_Value | datetime]] = {}
    for item in node.expressions:
        value = _value(item)
        groups.setdefault(type(value), []).append(_bound(name, value, item))
    return or_(*(_operand(name, kind).in_(values) for kind, values in groups.items()))


def _like(node: exp.Like) -> ColumnElement[bool]:
    name, pattern = _name(node.this), _value(node.expression)
    if not isinstance(pattern, str) or name.is_time:
        raise Unusable("LIKE compares text with a pattern in quotes, such as 'Ann%'", node.expression)
    if pattern.replace("\\\\", "").endswith("\\"):
        raise Unusable(
            "the pattern ends with a backslash that has nothing to escape; double it", node.expression
        )
    text = func.lower(_operand(name, str), type_=Text())
    like = text.like(pattern.translate(_ASCII_LOWER), escape="\\")
    return not_(like) if node.args.get("negate") else like


def _is_null(name: _Name) -> ColumnElement[bool]:
    if name.column is not None:
        return name.column.is_(None)
    return func.coalesce(engines.AttributeType(name.key), literal("null")) == literal(
        "null"
    )  # absent, or a JSON null


# --- names ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Name:
    """A column, or an attribute if `column` is None."""

    key: str
    column: ColumnElement[Any] | None

    @property
    def is_time(self) -> bool:
        return self.column is not None and isinstance(self.column.type, tables.Utc)


def _name(node: exp.Expr) -> _Name:
    if isinstance(node, exp.Paren):
        return _name(node.this)
    if not isinstance(node, exp.Column):
        raise Unusable(refusal(node), node)
    *table, key = (part.name for part in node.parts)
    if table not in ([], ["attributes"]) or not _ATTRIBUTE.fullmatch(key):
        raise Unusable(refusal(node), node)
    return _Name(key, None if table else _COLUMNS.get(key))


def _operand(name: _Name, kind: type) -> ColumnElement[Any]:
    """Return what `name` stands for, as something that compares with values of `kind`."""
    if name.column is not None:
        return name.column if name.is_time else engines.Bytewise(name.column)
    return engines.ATTRIBUTES[kind](name.key)


def _bound(name: _Name, value: _Value, where: exp.Expr) -> _Value | datetime:
    """Return `value` in the form that is compared with `name`."""
    if name.column is None:
        return value
    if name.is_time:
        return _moment(value, where)
    if not isinstance(value, str):
        raise Unusable(f"{name.key} is text; compare it with a text in quotes: {name.key} = '42'", where)
    return _host(value, where) if name.key == "domain" else value


def _domain_of_address() -> ColumnElement[str]:
    found = select(tables.domain.c.name).join(
        tables.address, tables.address.c.domain_id == tables.domain.c.id
    )
    return found.where(tables.address.c.id == tables.recipient.c.address_id).scalar_subquery()


_COLUMNS: dict[str, ColumnElement[Any]] = {
    "domain": _domain_of_address(),
    **{
        key: tables.recipient.c[key]
        for key in ("external_id", "name", "locale", "time_zone", "address", "created_at", "changed_at")
    },
}


# --- values -----------------------------------------------------------------------------------------------


def _value(node: exp.Expr) -> _Value:
    """Return the literal that `node` is."""
    match node:
        case exp.Literal() if node.is_string:
            return str(node.this)
        case exp.Literal():
            return _number(str(node.this), node)
        case exp.Neg() if isinstance(node.this, exp.Literal) and not node.this.is_string:
            return -_number(str(node.this.this), node)
        case exp.Boolean():
            return bool(node.this)
        case exp.Paren():
            return _value(node.this)
        case exp.Cast() if node.to.this in _DATE_TYPES and isinstance(node.this, exp.Literal):
            _moment(str(node.this.this), node)
            return str(node.this.this)  # an attribute holds a date as text
        case exp.Null():
            raise Unusable("nothing is equal to NULL; write IS NULL or IS NOT NULL", node)
        case exp.Column():
            text = node.name.replace("'", "''")
            raise Unusable(f"a name is compared with a value; a text stands in single quotes: '{text}'", node)
    raise Unusable(refusal(node), node)


def _number(text: str, where: exp.Expr) -> float:
    number = float(text)
    if math.isinf(number):
        raise Unusable(f"{text} is too large a number", where)
    return number


def _moment(value: _Value, where: exp.Expr) -> datetime:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise Unusable(f"{value} is no date; write '2026-12-31' or '2026-12-31 09:00'", where) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _host(value: str, where: exp.Expr) -> str:
    """Return a domain as the table keeps it: lower case, A-labels."""
    if value.isascii():
        return value.lower()
    try:
        return idna.encode(value, uts46=True).decode()
    except idna.IDNAError:
        raise Unusable(f"{value} is no domain", where) from None
