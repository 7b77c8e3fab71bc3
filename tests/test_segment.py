"""A condition selects the same recipients on each engine as by its definition, written here in Python."""

from __future__ import annotations

import contextlib
import operator
import re
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailbound import segment
from mailbound.database import tables
from mailbound.errors import InputError

EARLY, LATE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 6, 1, 12, 30, tzinfo=UTC)
TEXTS = [
    "",
    "DE",
    "de",
    "Zoë",
    "zoë",
    "ZOË",
    "a_b",
    "a%b",
    "aXb",
    "back\\slash",
    "it's",
    "2026-01-01",
    "42",
    "\U0001f600",
    "\uffee",
]
NUMBERS = [0, -1, 42, 100.5, 0.1, -0.0, 1e308, 5e-324, 2**53 + 1, 2**63, 10**400]
ATTRIBUTES = [*TEXTS, *NUMBERS, True, False, None, [], {"a": 1}, ["DE"]]
MISSING = object()


def rows():
    """Return recipients whose attributes go through every kind of value."""
    size = len(ATTRIBUTES)
    for number in range(size * 3):
        values = {
            "country": ATTRIBUTES[number % size],
            "score": ATTRIBUTES[(number * 7 + 5) % size],
            "vip": [True, False, None, "true", 1, MISSING][number % 6],
            "name": "an attribute that is called like a column",
            "birth date": "2026-01-01" if number % 2 else MISSING,
        }
        yield {
            "id": number + 1,
            "external_id": f"id-{number}",
            "address_id": number % 3 + 1,
            "address": ["Ann@example.com", "bob@xn--mller-kva.de", "c@example.org"][number % 3],
            "domain": ["example.com", "xn--mller-kva.de", "example.org"][number % 3],
            "name": TEXTS[number % len(TEXTS)],
            "locale": ["de", "en-GB", ""][number % 3],
            "time_zone": "Europe/Berlin",
            "attributes": {key: value for key, value in values.items() if value is not MISSING},
            "created_at": EARLY if number % 2 else LATE,
            "changed_at": LATE,
        }


ROWS = list(rows())


@pytest.fixture
def connection(database_url):
    """Return a connection to a database that holds `ROWS`."""
    engine = sa.create_engine(database_url)
    tables.metadata.create_all(engine, tables=[tables.domain, tables.address, tables.recipient])
    with engine.connect() as connection:
        if engine.name == "postgresql":  # as in a database that sorts like a dictionary
            for column in ("name", "external_id"):
                collated = f'ALTER COLUMN {column} TYPE varchar COLLATE "en-x-icu"'
                connection.exec_driver_sql(f"ALTER TABLE recipient {collated}")
        for number, name in enumerate(["example.com", "xn--mller-kva.de", "example.org"], start=1):
            connection.execute(sa.insert(tables.domain).values(id=number, name=name))
            key = f"x@{name}"
            connection.execute(sa.insert(tables.address).values(id=number, key=key, domain_id=number))
        kept = [{key: value for key, value in row.items() if key != "domain"} for row in ROWS]
        connection.execute(sa.insert(tables.recipient), kept)
        connection.commit()
        yield connection
    engine.dispose()


def selected(connection, condition):
    query = sa.select(tables.recipient.c.id).where(segment.parse(condition)).order_by(tables.recipient.c.id)
    return list(connection.scalars(query))


# --- the definition -----------------------------------------------------------------------------------------


def value_of(row, name, kind):
    """Return what `name` is for `row` as a `kind`, or None if it is absent or of another type."""
    if name in row and name != "attributes":
        return row[name]
    value = row["attributes"].get(name.strip('"').removeprefix("attributes."))
    if isinstance(value, bool) or value is None or kind is bool:
        return value if kind is bool and isinstance(value, bool) else None
    if kind is float and isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return None
    return value if kind is str and isinstance(value, str) else None


def negated(value):
    return None if value is None else not value


def conjunction(left, right):
    if left is False or right is False:
        return False
    return None if left is None or right is None else True


def disjunction(left, right):
    return negated(conjunction(negated(left), negated(right)))


def written(value):
    if isinstance(value, bool):
        return str(value).lower()
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


OPERATORS = {
    "=": operator.eq,
    "<>": operator.ne,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
names = st.sampled_from(
    ["country", "score", "vip", "absent", '"birth date"', "attributes.name", "attributes.score"]
)
columns = st.sampled_from(["external_id", "name", "locale", "address", "domain"])
texts = st.sampled_from(TEXTS) | st.text(
    st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), max_size=4
)
numbers = st.sampled_from(
    [float(number) for number in NUMBERS if number < 10**308] + [42, 9007199254740993]
) | st.floats(allow_nan=False, allow_infinity=False)


def compared(row, name, sign, value):
    found = value_of(row, name, float if type(value) is int else type(value))
    return None if found is None else OPERATORS[sign](found, float(value) if type(value) is int else value)


@st.composite
def comparisons(draw):
    name = draw(names | columns)
    value = draw(texts if name in ROWS[0] else texts | numbers | st.booleans())
    if name == "domain":
        value = draw(st.sampled_from(["example.com", "example.org", "other.example"]))
    sign = draw(st.sampled_from(["=", "<>"] if isinstance(value, bool) else list(OPERATORS)))
    if draw(st.booleans()):
        return f"{name} {sign} {written(value)}", lambda row: compared(row, name, sign, value)
    mirrored = sign.translate(str.maketrans("<>", "><")) if sign != "<>" else sign
    return f"({written(value)}) {mirrored} {name}", lambda row: compared(row, name, sign, value)


@st.composite
def memberships(draw):
    name = draw(names)
    values = draw(st.lists(texts | numbers | st.booleans(), min_size=1, max_size=4))

    def evaluate(row):
        answer = False
        for value in values:
            answer = disjunction(answer, compared(row, name, "=", value))
        return answer

    return f"{name} IN ({', '.join(map(written, values))})", evaluate


@st.composite
def ranges(draw):
    name = draw(names)
    kind = draw(st.sampled_from([texts, numbers]))
    low, high = draw(kind), draw(kind)
    return (
        f"{name} BETWEEN {written(low)} AND {written(high)}",
        lambda row: conjunction(compared(row, name, ">=", low), compared(row, name, "<=", high)),
    )


@st.composite
def likenesses(draw):
    name = draw(names | st.sampled_from(["external_id", "name", "address"]))
    pieces = st.sampled_from(["%", "_", "\\%", "\\_", "\\\\", "a", "B", "DE", "ë", "Ë", "id-", "'", "."])
    pattern = "".join(draw(st.lists(pieces, max_size=4)))

    def evaluate(row):
        found = value_of(row, name, str)
        return None if found is None else folded_like(found, pattern)

    return f"{name} LIKE {written(pattern)}", evaluate


def folded_like(text, pattern):
    lower = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
    tokens = re.findall(r"\\.|.", pattern.translate(lower), re.DOTALL)
    expression = "".join({"%": ".*", "_": "."}.get(token) or re.escape(token[-1]) for token in tokens)
    return re.fullmatch(expression, text.translate(lower), re.DOTALL) is not None


@st.composite
def absences(draw):
    name = draw(names)
    key = name.strip('"').removeprefix("attributes.")
    if draw(st.booleans()):
        return f"{name} IS NULL", lambda row: row["attributes"].get(key) is None
    return f"{name} IS NOT NULL", lambda row: row["attributes"].get(key) is not None


def joined(word, combine):
    return lambda pair: (
        f"({pair[0][0]}) {word} ({pair[1][0]})",
        lambda row: combine(pair[0][1](row), pair[1][1](row)),
    )


def perhaps_negated(strategy, word):
    """Return the strategy's condition, or the one with NOT before its word."""
    opposite = strategy.map(
        lambda one: (one[0].replace(f" {word} ", f" NOT {word} ", 1), lambda row: negated(one[1](row)))
    )
    return strategy | opposite


leaves = st.one_of(
    comparisons(),
    perhaps_negated(memberships(), "IN"),
    perhaps_negated(ranges(), "BETWEEN"),
    perhaps_negated(likenesses(), "LIKE"),
    absences(),
    st.sampled_from(["true", "false"]).map(lambda word: (word, lambda _: word == "true")),
    names.map(lambda name: (name, lambda row: value_of(row, name, bool))),
)
conditions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(joined("AND", conjunction)),
        st.tuples(inner, inner).map(joined("or", disjunction)),
        inner.map(lambda one: (f"NOT ({one[0]})", lambda row: negated(one[1](row)))),
    ),
    max_leaves=6,
)


def test_a_condition_selects_what_its_definition_says(connection):
    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(conditions)
    def check(condition):
        text, evaluate = condition
        assert selected(connection, text) == [row["id"] for row in ROWS if evaluate(row) is True], text

    check()


@pytest.mark.parametrize(
    ("condition", "same"),
    [
        ("42 <= score", "score >= 42"),
        ("42 < score", "score > 42"),
        ("42 >= score", "score <= 42"),
        ("42 > score", "score < 42"),
        ("score BETWEEN 0 AND 42", "score >= 0 AND score <= 42"),
        ("score NOT BETWEEN 0 AND 42", "score < 0 OR score > 42"),
        ("country LIKE 'de'", "country IN ('DE', 'de')"),
        ("country LIKE 'ZO_'", "country = 'Zoë' OR country = 'zoë' OR country = 'ZOË'"),
        ("country LIKE 'zoë'", "country IN ('Zoë', 'zoë')"),
        ("country LIKE 'A\\_B'", "country = 'a_b'"),
        ("name NOT LIKE '%E'", "NOT (name LIKE '%E')"),
        ("country NOT IN ('DE', 42)", "false"),  # whatever it is, it is unknown beside one of them
        ("NOT vip", "vip = false"),
        ("attributes.name = 'x' OR attributes.vip", "vip"),
        ("not vip or vip and country is null", "(NOT vip) OR (vip AND (country IS NULL))"),
        ("name < 'Z'", "name IN ('', '2026-01-01', '42', 'DE')"),
        ("name > 'zz'", "name IN ('😀', '\uffee')"),
    ],
)
def test_two_ways_to_say_the_same_select_the_same(connection, condition, same):
    found = selected(connection, condition)
    assert found == selected(connection, same)
    assert found or same == "false"


# --- what the definition leaves open ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        pytest.param("created_at < '2026-02-01'", {"2026-01-01"}, id="a date"),
        pytest.param("created_at >= '2026-06-01 12:30'", {"2026-06-01"}, id="a moment in UTC"),
        pytest.param("created_at >= '2026-06-01 14:30+02:00'", {"2026-06-01"}, id="a moment with an offset"),
        pytest.param("created_at = timestamp '2026-06-01 12:30'", {"2026-06-01"}, id="a typed literal"),
        pytest.param("created_at IN ('2026-01-01', '2026-06-01')", {"2026-01-01"}, id="a list"),
        pytest.param("created_at IS NOT NULL", {"2026-01-01", "2026-06-01"}, id="never null"),
        pytest.param("created_at < '2026-01-01'", set(), id="nothing"),
    ],
)
def test_a_time_column_is_compared_as_a_moment(connection, condition, expected):
    found = set(selected(connection, condition))
    assert {f"{row['created_at']:%Y-%m-%d}" for row in ROWS if row["id"] in found} == expected
    assert not expected or len(found) in {len(ROWS) // 2, len(ROWS) - len(ROWS) // 2, len(ROWS)}


@pytest.mark.parametrize("domain", ["müller.de", "MÜLLER.de", "xn--mller-kva.de", "XN--MLLER-KVA.DE"])
def test_a_domain_is_found_however_it_is_written(connection, domain):
    expected = [row["id"] for row in ROWS if row["domain"] == "xn--mller-kva.de"]
    assert selected(connection, f"domain = '{domain}'") == expected


def test_a_date_literal_compares_with_an_attribute_that_holds_a_date_as_text(connection):
    dated = [row["id"] for row in ROWS if "birth date" in row["attributes"]]
    assert selected(connection, "\"birth date\" >= DATE '2026-01-01'") == dated


@pytest.mark.parametrize("number", ["1e-400", "1e400", "-1e400", "0.0", "1" + "0" * 400])
def test_a_number_that_no_double_holds_raises_nothing(connection, number):
    attributes = sa.cast(sa.literal_column(f"'{{\"odd\": {number}}}'"), tables.recipient.c.attributes.type)
    if connection.dialect.name == "sqlite":
        attributes = sa.literal_column(f"'{{\"odd\": {number}}}'")
    connection.execute(
        sa.update(tables.recipient).where(tables.recipient.c.id == 1).values(attributes=attributes)
    )
    assert selected(connection, "odd = 5 OR odd > 1e300 OR odd < -1e300") == []


def test_a_long_list_and_a_long_chain_are_within_the_limits_of_the_engine(connection):
    everybody = ", ".join(f"'id-{number}'" for number in range(1500))
    assert len(selected(connection, f"external_id IN ({everybody})")) == len(ROWS)
    assert selected(connection, " OR ".join(["country = 'DE'"] * 500)) == selected(
        connection, "country = 'DE'"
    )


INJECTIONS = [
    "1 = 1; DROP TABLE recipient",
    "country = '' OR 1 = 1 --",
    "country = 'x' UNION SELECT password FROM users",
    "id IN (SELECT recipient_id FROM opt_in)",
    "country = (SELECT 1)",
    "EXISTS (SELECT 1 FROM token_key)",
    "pg_sleep(10) IS NULL",
    "country = pg_read_file('/etc/passwd')",
    "load_extension('x') = 1",
    "randomblob(1000000000) = 'x'",
    "country || name = 'x'",
    "country::int = 1",
    "CAST(country AS int) = 1",
    "country LIKE ANY (ARRAY['x'])",
    "country COLLATE nocase = 'x'",
    "country ~ '(a+)+$'",
    "country REGEXP '(a+)+$'",
    "country SIMILAR TO 'x'",
    "country GLOB '*'",
    "country = :param",
    "country = ?",
    "country = @@version",
    "country = $1",
    "score / 0 = 1",
    "score + 1 > 2",
    "CASE WHEN vip THEN 1 END = 1",
    "token_key.secret = 'x'",
    "main.recipient.name = 'x'",
    "attributes.a.b = 'x'",
    "\"a'b\" = 'x'",
    '"a""b" = 1',
    '"$.x" = 1',
    "country = current_user",
    "country IN (name)",
    "country IN UNNEST(name)",
    "country = name",
    "country -> 'x' = 'y'",
    "country[0] = 'y'",
    "country = x'41'",
    "country = N'x'",
    "country = INTERVAL '1' DAY",
    "* = 1",
    "(country, name) = ('x', 'y')",
    "country = 'x' LIMIT 1",
    "country BETWEEN SYMMETRIC 'a' AND 'b'",
    "country IS DISTINCT FROM 'x'",
    "country ILIKE 'x'",
    "country LIKE 'x!%' ESCAPE '!'",
    "vip IS TRUE",
    "vip = 1 = 2",
    "NOT 'x'",
    "lambda x: x",
    "{{ 7 * 7 }}",
]


@pytest.mark.parametrize("condition", INJECTIONS)
def test_only_the_grammar_is_taken(condition):
    with pytest.raises(InputError, match=r"^segment condition, column \d+: "):
        segment.parse(condition)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("country = 'DE' AND lower(name) = 'x'", "column 20: the function lower() is not allowed here; "),
        ("", "column 1: it is empty; write for example country = 'DE', or true for everybody"),
        ("country = 'DE", "column 11: this quote or comment is never closed"),
        ("a = 'it''s' AND b = 'x", "column 21: this quote or comment is never closed"),
        ("a = 1 /* b", "column 7: this quote or comment is never closed"),
        ("(country = 'DE'", "column 12: ) is missing after this"),
        ("a = 1 AND", "column 7: something is missing after this"),
        ("a = 1\nAND b = 2 )", "line 2, column 11: ) is not understood here"),
        ("a = 1\nAND b = name", "line 2, column 9: a name is compared with a value; a text stands in single"),
        (
            'country = "DE"',
            "column 11: a name is compared with a value; a text stands in single quotes: 'DE'",
        ),
        ("external_id = 42", "column 15: external_id is text; compare it with a text in quotes"),
        ("created_at > 'x'", "column 14: x is no date; write '2026-12-31' or '2026-12-31 09:00'"),
        ("last > DATE 'x'", "column 13: x is no date"),
        ("a = NULL", "column 1: nothing is equal to NULL; write IS NULL or IS NOT NULL"),
        ("vip > TRUE", "column 1: true and false are compared with = or <>"),
        ("vip AND name", "column 9: name is text; compare it"),
        ("a IN ()", "column 1: the list after IN is empty"),
        ("a LIKE 'x\\'", "column 8: the pattern ends with a backslash that has nothing to escape; double it"),
        ("a LIKE 1", "column 8: LIKE compares text with a pattern in quotes, such as 'Ann%'"),
        ("created_at LIKE '2026%'", "column 17: LIKE compares text with a pattern in quotes, such as 'Ann%'"),
        ("a ILIKE 'x'", "column 1: ILIKE is not allowed here; write LIKE, which ignores case already"),
        ("a = 1e999", "column 5: 1e999 is too large a number"),
        ("a = '\x00'", "column 6: a control character is not allowed"),
        ("shop.name = 'x'", "column 1: shop.name is no name; write country, or attributes.country"),
        ("domain = 'a\u2024b..c'", "column 10: a\u2024b..c is no domain"),
        (
            " OR ".join(["a = 1"] * 501),
            "column 1: it has more than 500 terms; use IN (...), or import a fixed list",
        ),
        (
            "a = '" + "x" * 20_000 + "'",
            "column 20001: it has more than 20,000 characters; import a fixed list",
        ),
    ],
)
def test_a_fault_names_its_place_and_the_mend(condition, message):
    with pytest.raises(InputError) as raised:
        segment.parse(condition)
    assert str(raised.value).startswith(f"segment condition, {message}")


@pytest.mark.parametrize("condition", ["(" * 2000 + "a = 1" + ")" * 2000, "NOT " * 3000 + "a = 1"])
def test_what_is_nested_too_deeply_is_a_fault(condition):
    with pytest.raises(InputError, match="nested too deeply"):
        segment.parse(condition)


WORDS = "a = < -1 'x' ( ) and or not in like is null , /* :: -- between"


@settings(deadline=None)
@given(st.text(max_size=40) | st.lists(st.sampled_from(WORDS.split()), max_size=12).map(" ".join))
def test_any_text_is_parsed_or_refused(condition):
    parsed = None
    with contextlib.suppress(InputError):  # anything else fails the test
        parsed = segment.parse(condition)
    assert parsed is None or isinstance(parsed, sa.ColumnElement)


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=3, max_size=20))
def test_no_literal_gets_into_the_sql(literal):
    canary = f"canary{literal}"
    text = written(canary)
    condition = f"country = {text} AND name LIKE {text} OR score IN ({text}, 77031)"
    for dialect in (sa.create_engine("sqlite://").dialect, sa.create_engine("postgresql+psycopg://").dialect):
        sql = str(segment.parse(condition.replace("\\", "")).compile(dialect=dialect))
        assert "canary" not in sql
        assert "country" not in sql
        assert "77031" not in sql
