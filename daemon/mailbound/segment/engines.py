"""The SQL of a comparison, worded for each engine so that both give the same answer."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, Float, Text, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement

from mailbound.database import tables


class Bytewise(FunctionElement[str]):
    """A text column compared by its bytes, whatever the collation of the database."""

    type = Text()
    inherit_cache = True


class Attribute(FunctionElement[Any]):
    """An attribute of the recipient, or NULL if it is absent or of another type."""

    inherit_cache = True

    def __init__(self, key: str) -> None:
        """Name the attribute; the key is bound like any value."""
        # SQLite asks for a path, PostgreSQL for the key itself.
        super().__init__(tables.recipient.c.attributes, literal(f'$."{key}"'), literal(key))


class AttributeText(Attribute):
    """A text attribute, compared by its bytes."""

    type = Text()
    inherit_cache = True


class AttributeNumber(Attribute):
    """A number, as a double."""

    type = Float()
    inherit_cache = True


class AttributeBoolean(Attribute):
    """True or false."""

    type = Boolean()
    inherit_cache = True


class AttributeType(Attribute):
    """The JSON type of an attribute: `null` is the only name that both engines share."""

    type = Text()
    inherit_cache = True


ATTRIBUTES: dict[type, type[Attribute]] = {
    str: AttributeText,
    float: AttributeNumber,
    bool: AttributeBoolean,
}

_LARGEST = "1.7976931348623157e308"
_SMALLEST = "5e-324"

# Each for SQLite and for PostgreSQL; {0} is the column, {1} the path, {2} the key. CASE keeps a cast from
# being tried on another type. What no double can hold counts as no number: there PostgreSQL raises.
_SQL = {
    Bytewise: ("{0}", '({0} COLLATE "C")'),
    AttributeType: ("json_type({0}, {1})", "jsonb_typeof({0} -> {2})"),
    AttributeText: (
        "CASE WHEN json_type({0}, {1}) = 'text' THEN json_extract({0}, {1}) END",
        "(CASE WHEN jsonb_typeof({0} -> {2}) = 'string' THEN {0} ->> {2} END COLLATE \"C\")",
    ),
    AttributeNumber: (
        f"""CASE WHEN json_type({{0}}, {{1}}) IN ('integer', 'real')
            AND abs(CAST(json_extract({{0}}, {{1}}) AS REAL)) <= {_LARGEST}
            THEN CAST(json_extract({{0}}, {{1}}) AS REAL) END""",
        f"""CASE WHEN jsonb_typeof({{0}} -> {{2}}) = 'number' THEN
            CASE WHEN ({{0}} -> {{2}})::numeric = 0
            OR abs(({{0}} -> {{2}})::numeric) BETWEEN {_SMALLEST} AND {_LARGEST}
            THEN ({{0}} -> {{2}})::float8 END END""",
    ),
    AttributeBoolean: (
        "CASE json_type({0}, {1}) WHEN 'true' THEN 1 WHEN 'false' THEN 0 END",
        "CASE WHEN jsonb_typeof({0} -> {2}) = 'boolean' THEN ({0} -> {2})::boolean END",
    ),
}


def _for_sqlite(element: FunctionElement[Any], compiler: SQLCompiler, **options: Any) -> str:
    return _SQL[type(element)][0].format(*(compiler.process(part, **options) for part in element.clauses))


def _for_postgresql(element: FunctionElement[Any], compiler: SQLCompiler, **options: Any) -> str:
    return _SQL[type(element)][1].format(*(compiler.process(part, **options) for part in element.clauses))


for _construct in _SQL:
    compiles(_construct, "sqlite")(_for_sqlite)
    compiles(_construct, "postgresql")(_for_postgresql)
