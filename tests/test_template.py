"""Templates: what a folder becomes, what is told about a faulty one, and what the sandbox keeps out."""

from __future__ import annotations

import hashlib
import io
import zipfile
from html import unescape
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateSyntaxError

from mailbound.errors import InputError
from mailbound.template import Template, TemplateFault, inlining, plaintext, protection, sandbox

SAMPLE = Path(__file__).parent.parent / "daemon/mailbound/samples/spring"
VALUES = {
    "name": "Zoë & Co <x>",
    "address": "zoe@example.com",
    "store": "Example News",
    "unsubscribe_url": "https://news.example.com/u/abc?a=1&b=2",
}


def template(**files):
    """Return a template of `files`; `_` stands for the dot of a suffix, and subject.txt need not be given."""
    named = {name.replace("_", "."): text.encode() for name, text in files.items()}
    return Template("t", {"subject.txt": b"s"} | named)


def text_of(source, **values):
    return template(text_txt=source).render(values).text


def html_of(source, **values):
    return template(html_html=source).render(values).html


# --- the folder -------------------------------------------------------------------------------------------


def test_the_sample_renders_with_its_styles_inlined_and_a_text_of_its_own():
    rendered = Template.load(SAMPLE).render(VALUES)
    assert rendered.subject == "Zoë & Co <x>, spring is here"
    assert "Good morning, Zoë &amp; Co &lt;x&gt;!</h1>" in rendered.html
    assert '<p style="margin: 14px 0;">' in rendered.html
    assert "@media (max-width: 480px)" in rendered.html
    assert "Good morning, Zoë & Co <x>!" in rendered.text
    assert "\n- Three walks that begin at a railway station\n" in rendered.text
    assert "Unsubscribe <https://news.example.com/u/abc?a=1&b=2> whenever you like." in rendered.text


def test_the_sample_is_worked_on_once_and_not_per_message():
    source = (SAMPLE / "html.html").read_text()
    assert inlining.inline_source(source) is not None
    assert plaintext.from_source(source) is not None


def test_a_frozen_template_is_the_same_and_knows_nothing_of_later_edits(tmp_path):
    folder = tmp_path / "spring"
    (folder / "inline").mkdir(parents=True)
    (folder / "subject.txt").write_text("Hello {{ name }}")
    (folder / "html.html").write_text('<p>{{ name }}</p><img src="cid:logo.png">{% include "foot.html" %}')
    (folder / "foot.html").write_text("<p>the foot</p>")
    (folder / "inline" / "logo.png").write_bytes(b"png")
    loaded = Template.load(folder)
    frozen = loaded.freeze()
    (folder / "foot.html").write_text("<p>changed</p>")
    thawed = Template.thaw(frozen)
    assert thawed.name == "spring"
    assert thawed.render(VALUES) == loaded.render(VALUES)
    assert "the foot" in thawed.render(VALUES).html
    assert thawed.freeze() == frozen
    assert thawed.sha256 == hashlib.sha256(frozen).hexdigest()
    assert Template.load(folder).sha256 != thawed.sha256


def test_a_frozen_template_does_not_depend_on_order_or_time(tmp_path):
    files = {"subject.txt": b"s", "text.txt": b"t", "attachments/a.pdf": b"%PDF"}
    assert Template("t", files).freeze() == Template("t", dict(reversed(files.items()))).freeze()
    (tmp_path / "frozen.zip").write_bytes(Template("t", files).freeze())
    with zipfile.ZipFile(tmp_path / "frozen.zip") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_files_of_editors_and_hidden_ones_are_left_out(tmp_path):
    for name in ("subject.txt", "text.txt", "text.txt~", ".DS_Store"):
        (tmp_path / name).write_text("x")
    with zipfile.ZipFile(io.BytesIO(Template.load(tmp_path).freeze())) as archive:
        assert archive.namelist() == ["subject.txt", "text.txt"]


def test_images_and_attachments_are_found():
    files = {
        "html.html": b'<img src="cid:a b.png">',
        "inline/a b.png": b"png",
        "attachments/Liste.pdf": b"%PDF",
    }
    found = Template("t", {"subject.txt": b"s"} | files)
    [image], [paper] = found.inline, found.attachments
    assert (image.name, image.content) == ("a b.png", b"png")
    assert (paper.name, paper.content, paper.content_id) == ("Liste.pdf", b"%PDF", None)
    assert f'src="cid:{image.content_id}"' in found.render({}).html


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"text_txt": "x", "subject_txt": "{{ name"},
            "template t: subject.txt, line 1: unexpected end of template",
        ),
        ({"html_html": "<p>\n{% if x %}\n"}, "template t: html.html, line 2: Unexpected end of template."),
        (
            {"html_html": "\n\n{% frobnicate %}"},
            "template t: html.html, line 3: Encountered unknown tag 'frobnicate'.",
        ),
        ({"text_txt": "{{ x|frobnicate }}"}, "template t: text.txt, line 1: No filter named 'frobnicate'."),
        ({"text_txt": "x", "foot_html": "{{"}, "template t: foot.html, line 1: unexpected 'end of template'"),
        (
            {"text_txt": '{% include "foot.txt" %}'},
            "template t: text.txt: it names foot.txt, which is not there",
        ),
        (
            {"html_html": '\n<img src="cid:a.png">'},
            "template t: html.html, line 2: there is no inline/a.png; inline/ holds nothing",
        ),
        (
            {"html_html": '<img src="cid:{{ x }}">'},
            "template t: html.html, line 1: there is no inline/{{ x }}",
        ),
        ({}, "template t: text.txt and html.html are both missing; it needs one of them"),
    ],
)
def test_a_faulty_template_is_refused_with_file_and_line(files, message):
    with pytest.raises(InputError) as raised:
        template(**files)
    assert str(raised.value).startswith(message)


def test_a_template_without_a_subject_is_refused():
    with pytest.raises(InputError, match=r"template t: subject.txt is missing"):
        Template("t", {"text.txt": b"x"})


def test_text_that_is_not_utf8_is_refused_with_its_line():
    with pytest.raises(InputError, match=r"template t: text.txt, line 2: it is not UTF-8"):
        Template("t", {"subject.txt": b"s", "text.txt": b"one\nZo\xeb"})


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="template winter: there is no folder"):
        Template.load(tmp_path / "winter")


def test_a_folder_that_no_relay_would_take_is_refused(tmp_path):
    (tmp_path / "subject.txt").write_text("s")
    with (tmp_path / "film.mp4").open("wb") as film:
        film.truncate(30_000_000)  # sparse
    with pytest.raises(InputError, match="its files have more than"):
        Template.load(tmp_path)


# --- rendering --------------------------------------------------------------------------------------------


def test_html_is_escaped_and_text_is_not():
    rendered = template(text_txt="{{ x }}", html_html="<p>{{ x }}</p>").render({"x": "<b>&"})
    assert rendered.text == "<b>&"
    assert rendered.html == "<p>&lt;b&gt;&amp;</p>"


@pytest.mark.parametrize("value", ["a\nb", "a\r\nBcc: x", "a\u2028b", " a  b "])
def test_a_subject_is_one_line(value):
    subject = template(subject_txt="{{ x }}\n", text_txt="t").render({"x": value}).subject
    assert subject == " ".join(value.split())
    assert len(subject.splitlines()) == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"subject_txt": "{{ first_name }}", "text_txt": "t"},
            "'first_name' is missing in subject.txt, line 1",
        ),
        ({"text_txt": "one\ntwo {{ first_name }}"}, "'first_name' is missing in text.txt, line 2"),
        ({"html_html": "<p>\n\n{{ first_name }}"}, "'first_name' is missing in html.html, line 3"),
        ({"html_html": "{{ shop.street }}"}, "'street' is missing in html.html, line 1"),
        (
            {"html_html": '<p>\n{% include "foot.html" %}', "foot_html": "\n\n\n{{ first_name }}"},
            "'first_name' is missing in foot.html, line 4",
        ),
        ({"text_txt": "{{ 1 / 0 }}"}, "division by zero in text.txt, line 1"),
        (
            {"text_txt": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"},
            "it calls itself without end in text.txt",
        ),
    ],
)
def test_what_is_missing_is_named_with_its_place(files, message):
    with pytest.raises(TemplateFault) as raised:
        template(**files).render({"shop": {"city": "Köln"}})
    assert str(raised.value).startswith(message)


def test_a_value_that_may_be_absent_can_be_asked_for():
    source = "{{ first_name | default('you') }}{% if last_name is defined %}!{% endif %}"
    assert text_of(source) == "you"


@pytest.mark.parametrize("count", [3, 2_000])
def test_a_choice_may_have_many_ways(count):
    ways = "".join(f"{{% elif x{number} %}}{number}" for number in range(count))
    values = dict.fromkeys(("a", *(f"x{number}" for number in range(count))), False)
    rows = [values | {"x1": True}, values | {"a": True}, values]
    made = template(text_txt=f"{{% if a %}}a{ways}{{% endif %}}").render_all(rows)
    said = {number: sheet.text.whole(row) for sheet in made for row, number in enumerate(sheet.numbers)}
    assert said == {0: "1", 1: "a", 2: ""}


def test_a_layout_can_be_shared():
    files = {
        "html_html": '{% extends "layout.html" %}{% block main %}<p class="a">{{ x }}</p>{% endblock %}',
        "layout_html": "<style>.a { color: red }</style><body>{% block main %}{% endblock %}<p>the foot</p></body>",
    }
    rendered = template(**files).render({"x": "<&"})
    assert '<p class="a" style="color: red;">&lt;&amp;</p>' in rendered.html
    assert rendered.text == "<&\n\nthe foot\n"


# --- the sandbox ------------------------------------------------------------------------------------------

ESCAPES = [
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ x.__init__.__globals__ }}",
    "{{ x | attr('__class__') }}",
    "{{ x['__class__'] }}",
    "{{ '{0.__class__}'.format(x) }}",
    "{{ '{0.__class__}'.format_map({'0': x}) }}",
    "{{ ('{0.__cl' ~ 'ass__}').format(x) }}",
    "{{ ['{0.__class__}'] | map('format', x) | join }}",
    "{{ self.__init__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ range.__wrapped__ }}",
    "{{ items.append(1) }}",
    "{{ items.clear() }}",
    "{{ shop.update({'a': 1}) }}",
    "{{ shop.pop('city') }}",
    "{% include '/etc/passwd' ignore missing %}{{ config }}",
    "{% include ['../../config.toml', '/etc/passwd'] %}",
    "{% import 'os' as os %}",
    "{{ import('os') }}",
    "{{ open('/etc/passwd') }}",
    "{{ lipsum(10) }}",
    "{{ lipsum.__globals__ }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_the_sandbox_has_no_way_out(source):
    items, shop = [1], {"city": "Köln"}
    with pytest.raises(InputError):
        text_of(source, x="text", items=items, shop=shop)
    assert (items, shop) == ([1], {"city": "Köln"})


BOMBS = [
    "{{ 'a' * 10**8 }}",
    "{{ [0] * 10**8 }}",
    "{{ 10**10**10 }}",
    "{{ 2**99999999 }}",
    "{{ '%999999999d' % 1 }}",
    "{{ '{:999999999}'.format(1) }}",
    "{{ '%999999999d' | format(1) }}",
    "{{ '%*d' | format(999999999, 1) }}",
    "{{ 'a'.ljust(999999999) }}",
    "{{ 'a' | center(999999999) }}",
    "{{ 'a\nb' | indent(999999999) }}",
    "{{ [1] | batch(999999999, 'x') | list }}",
    "{{ range(10**9) | list }}",
    "{{ range(10**9) | sum }}",
    "{% for a in range(10**9) %}{% endfor %}",
    "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}" + "{% endfor %}" * 3,
    "{% for a in x %}{% for b in x %}{% for c in x %}{% for d in x %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}",
    "{% set n = namespace(v='aaaaaaaaaa') %}{% for i in range(40) %}{% set n.v = n.v ~ n.v %}{% endfor %}{{ n.v }}",
    "{% set n = namespace(v='aaaaaaaaaa') %}{% for i in range(40) %}{% set n.v = n.v + n.v %}{% endfor %}{{ n.v }}",
    "{% set n = namespace(v='aaaaaaaaaa') %}{% for i in range(40) %}{% set n.v = n.v|replace('a', 'aa') %}{% endfor %}",
    "{% set n = namespace(v='aaaaaaaaaa') %}{% for i in range(40) %}{% set n.v = [n.v, n.v] | join %}{% endfor %}",
    "{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}",
    "{% for i in range(9000) %}{{ y }}{% endfor %}",
    "{% include 'text.txt' %}",
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("source", BOMBS)
def test_a_bomb_is_a_fault_and_no_fire(source):
    with pytest.raises(TemplateFault):
        text_of(source, x="abcdefghijklmnopqrst", y="y" * 1000)


def test_each_rendering_has_a_budget_of_its_own():
    source = template(text_txt="{% for i in range(9000) %}{% endfor %}x")
    assert [source.render({}).text for _ in range(3)] == ["x"] * 3


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ 3 * 4 }} {{ 2 ** 10 }} {{ 7 % 4 }} {{ 'a' + 'b' }} {{ 'a' ~ 1 }}", "12 1024 3 ab a1"),
        ("{% for i in items %}{{ loop.index }}/{{ loop.length }} {% endfor %}", "1/2 2/2 "),
        ("{% for key, value in shop.items() %}{{ key }}={{ value }}{% endfor %}", "city=Köln"),
        ("{% for i in [] %}{% else %}none{% endfor %}", "none"),
        ("{{ items | join(', ') }} {{ 'aXb' | replace('X', '-') }} {{ 1.5 | round(1) }}", "a, b a-b 1.5"),
        ("{{ '%.2f' | format(3.14159) }} {{ '%-3s|' | format('a') }}", "3.14 a  |"),
        ("{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}", "ab"),
        ("{{ 5000 | default(1) }} {{ missing | default(5000) }}", "5000 5000"),
    ],
)
def test_ordinary_work_is_not_hindered(source, expected):
    assert text_of(source, items=["a", "b"], shop={"city": "Köln"}) == expected


# --- working on the source instead of each message --------------------------------------------------------

STYLE = "<style>.a { color: red } .b { margin: 0 } p { padding: 1px } td { top: 0 }</style>"
STYLES = [
    STYLE,
    "<style>li:first-child { color: red }</style>",
    "<style>p + p { color: red }</style>",
    "<style>p:empty { color: red }</style>",
    "<style>div p { color: red } div > a { color: blue }</style>",
    "<style>a[href^=https] { color: red }</style>",
]
PIECES = [
    '<p class="a">',
    "<p>",
    "</p>",
    '<div class="b">',
    "</div>",
    "<ul><li>",
    "</li></ul>",
    "<table><tbody><tr><td>",
    "</td></tr></tbody></table>",
    "<table><tr><td>",
    "</table>",
    '<a href="https://x.example/?a={{ y }}&amp;b=1">',
    '<a href="{{ z }}">{{ z }}</a>',
    '<a href="mailto:{{ z }}">{{ z }}</a>',
    "</a>",
    "<a {% if x %}href='{{ y }}'{% endif %}>",
    '<p class="{{ z }}">',
    '<p class="a{% if x %} b{% endif %}">',
    "<p {% if x %}class='b'{% endif %}>",
    "<p style='left: {{ y }}'>",
    "<!-- {{ y }} -->",
    "<!-- {% if x %}x{% endif %} -->",
    "<title>{{ y }}</title>",
    "<h{{ 1 }}>",
    "<br>",
    "<hr>",
    "<pre>  a\n b</pre>",
    '<span style="display: none">hidden {{ y }}</span>',
    "<style>.{{ z }} { left: 0 }</style>",
    '<img alt="{{ y }}">',
    " words and {{ y }} more ",
    "{{ y }}",
    "{{ y | e }}",
    "{{ '<b>' | safe }}",
    "{% raw %}{{ raw }}{% endraw %}",
    "{# a <p> comment #}",
    "a &lt; b &amp; c",
    "&#123;&#123; y",
    "\n  ",
]


WRAPPINGS = [
    ('<p class="a">', "</p>"),
    ('<div class="b">', "</div>"),
    ("<ul><li>", "</li></ul>"),
    ("<table><tbody><tr><td>", "</td></tr></tbody></table>"),
    ("<table><tbody>", "</tbody></table>"),
    ("<tr><td>", "</td></tr>"),
    ('<a class="a" href="{{ y }}">', "</a>"),
]


def conditional(parts):
    return "{% if x %}" + parts[0] + "{% else %}" + parts[1] + "{% endif %}"


documents = st.recursive(
    st.sampled_from(PIECES),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=5).map("".join),
        st.tuples(st.sampled_from(WRAPPINGS), inner).map(lambda pair: pair[1].join(pair[0])),
        st.tuples(inner, inner).map(conditional),
        inner.map(lambda part: "{% for i in items %}" + part + "{% endfor %}"),
    ),
    max_leaves=8,
)
SITUATIONS = [
    {"x": x, "y": "Zoë <&> 'n' \"q\"", "z": "b", "items": items}
    for x in (True, False)
    for items in ([], [1, 2])
]


def rendered(source, values, *, html):
    environment = sandbox.Environment({"t": source}, html=html, trim=False)
    sandbox.renew_budget()
    return environment.get_template("t").render(values)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(STYLES), documents)
def test_styles_inlined_once_are_as_if_inlined_in_each_message(style, document):
    source = f"<html><head>{style}</head><body>{document}</body></html>"
    once = inlining.inline_source(source)
    for values in SITUATIONS if once is not None else []:
        each = inlining.inline(rendered(source, values, html=True))
        assert unescape(rendered(once, values, html=True)) == unescape(each)


@settings(max_examples=200, deadline=None)
@given(documents)
def test_text_made_once_is_as_if_made_from_each_message(document):
    once = plaintext.from_source(document)
    for values in SITUATIONS if once is not None else []:
        each = plaintext.from_html(rendered(document, values, html=True))
        assert plaintext.lay_out(rendered(once, values, html=False)) == each


@pytest.mark.parametrize(
    ("source", "once"),
    [
        ('<p class="a">{{ y }}</p>', True),
        ("{% for i in items %}<p>{{ i }}</p>{% endfor %}", True),
        ('<a href="{{ y }}">x</a><img src="{{ y }}">', True),
        ("<title>{{ y }}</title><!-- {{ y }} -->", True),
        ('<p class="{{ y }}">', False),
        ("<p {% if x %}class='a'{% endif %}>", False),
        ("{% if x %}<div class='a'>{% else %}<div class='b'>{% endif %}</div>", False),
        ("<style>p { color: {{ y }} }</style><p></p>", False),
        ("{% if x %}<style>p { color: red }</style>{% endif %}<p></p>", False),
        ("<table>{% for i in items %}<tr><td></td></tr>{% endfor %}</table>", False),  # a tbody is implied
        ("<style>li:first-child { top: 0 }</style><ul>{% for i in items %}<li></li>{% endfor %}</ul>", False),
        ("<style>p:empty { top: 0 }</style><p>{{ y }}</p>", False),
        ("<style>li:first-child { top: 0 }</style><ul><li></li></ul>", True),
        ("<html>{{ y }}<style></style></html>", False),  # head and body are implied
    ],
)
def test_only_what_cannot_change_its_meaning_is_inlined_once(source, once):
    source = source if "<html>" in source else f"<html><head>{STYLE}</head><body>{source}</body></html>"
    assert (inlining.inline_source(source) is not None) is once


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<h1>A</h1><p>b\n c</p><p>d<br>e</p>", "A\n\nb c\n\nd\ne\n"),
        ("<ul><li>a<li>b</ul><p>c", "- a\n- b\n\nc\n"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc\n"),
        (
            '<a href="https://x.example">Look</a>, <a href="https://y.example">https://y.example</a>',
            "Look <https://x.example>, https://y.example\n",
        ),
        ('<a href="mailto:a@b.example">a@b.example</a> <a href="#top">up</a>', "a@b.example up\n"),
        (
            '<a href="https://x.example"><img alt="Logo"></a><a href="https://y.example"><img></a>',
            "Logo <https://x.example> <https://y.example>\n",
        ),
        ("<head><title>t</title><style>s</style></head><body>b<script>x</script></body>", "b\n"),
        ('<div style="DISPLAY:none">hidden<div>too</div></div>seen', "seen\n"),
        ("<pre>  a\n   b</pre>c", "  a\n   b\n\nc\n"),
        ("a &amp; b &lt;c&gt; &copy;&nbsp;d", "a & b <c> © d\n"),
        ("a<b>b</b>c <i>d</i>\n\n", "abc d\n"),
        ("a<hr>b", "a\n\n----------------------------------------\n\nb\n"),
        ("", "\n"),
    ],
)
def test_html_becomes_text(html, text):
    assert plaintext.from_html(html) == text


@given(st.text(max_size=200) | st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_any_html_becomes_text(html):
    assert plaintext.from_html(html).endswith("\n")


@given(st.text(alphabet="<>!-/=\"' ap{}%#\n", max_size=60))
def test_what_is_protected_can_be_restored(source):
    try:
        protected = protection.protect(source)
    except TemplateSyntaxError:
        return
    if protected is not None:
        assert "".join(protected.restore(protected.html).split()) == "".join(source.split())
