"""Letters: what a delivery's tokens, addresses and links look like, and that they lead back to it."""

from __future__ import annotations

import email
import re
from collections.abc import Mapping
from email import policy
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mailbound import tokens
from mailbound.config import Inbox, Outbound, Store, Web
from mailbound.database.claims import Claimed
from mailbound.errors import InputError
from mailbound.message import MessageFault
from mailbound.model import Letter
from mailbound.outbound.composer import Frame, compose
from mailbound.relay import body
from mailbound.template import Template, TemplateFault
from mailbound.tokens import Key, Purpose
from world import NOW

KEY = Key(3, b"k" * 32)
DAY = tokens.day_number(NOW)


def store(**more: Any) -> Store:
    inbound = {"address": "bounces@example.com", "host": "localhost", "username": "b", "tls": "insecure"}
    outbound = Outbound(address="hello@example.com", host="localhost", tls="insecure")
    inbox = Inbox(**{**inbound, **more.pop("inbound", {})})
    return Store(name="Example News", list_id="news.example.com", outbound=outbound, inbound=inbox, **more)


def letter(
    *,
    text: str = "Hello {{ name }}",
    web: Web | None = None,
    attempt: int = 1,
    address: str = "anna@example.org",
    **more: Any,
) -> tuple[Any, Mapping[str, str]]:
    template = Template("spring", {"subject.txt": b"Spring", "text.txt": text.encode()})
    frame = Frame.of(
        template, key=KEY, day=DAY, store=store(**more), store_id=2, activity="spring", web=web or Web()
    )
    claimed = Claimed(42, 1, 7, attempt, "example.org", None, "R7", address, "Anna", "de", {"town": "Ulm"})
    [made] = compose(frame, [claimed], now=NOW)
    if isinstance(made, Exception):
        raise made
    return made, email.message_from_bytes(made.content, policy=policy.default)


def verified(text: str) -> tokens.Token:
    found = tokens.verify(text, {3: KEY}, now=NOW)
    assert found is not None, text
    return found


def test_every_carrier_leads_back_to_the_delivery() -> None:
    made, message = letter(attempt=3)
    local_part, _, domain = made.return_path.rpartition("@")
    base, _, token = local_part.partition("+")
    assert (base, domain) == ("bounces", "example.com")
    assert verified(token) == tokens.Token(Purpose.RETURN_PATH, 3, 42, attempt=3, day=DAY)
    assert verified(made.envid) == tokens.Token(Purpose.ENVID, 3, 42, attempt=3, day=DAY)
    message_id = message["Message-ID"].strip("<>").partition("@")
    assert verified(message_id[0]) == tokens.Token(Purpose.MESSAGE_ID, 3, 42, attempt=0, day=DAY)
    assert message_id[2] == "example.com"


def test_a_retry_keeps_its_message_id_and_changes_the_rest() -> None:
    (first, one), (second, two) = letter(attempt=1), letter(attempt=2)
    assert one["Message-ID"] == two["Message-ID"]
    assert first.return_path != second.return_path
    assert first.envid != second.envid


def test_without_a_web_address_people_leave_by_mail() -> None:
    _, message = letter()
    assert message["List-Unsubscribe-Post"] is None
    uri = message["List-Unsubscribe"].strip("<>")
    assert uri.startswith("mailto:bounces+")
    assert uri.endswith("@example.com?subject=unsubscribe")
    token = uri.partition("+")[2].partition("@")[0]
    assert verified(token) == tokens.Token(Purpose.UNSUBSCRIBE, 3, 7, store=2)


def test_with_a_web_address_one_click_comes_first() -> None:
    _, message = letter(web=Web(unsubscribe_url="https://news.example.com/u/"))
    assert message["List-Unsubscribe"].startswith("<https://news.example.com/u/")
    assert ">, <mailto:bounces+" in message["List-Unsubscribe"]
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


def test_without_subaddressing_the_subject_and_the_other_carriers_hold_the_tokens() -> None:
    made, message = letter(inbound={"subaddressing": False})
    assert made.return_path == "bounces@example.com"
    assert verified(made.envid).subject == 42
    uri = message["List-Unsubscribe"].strip("<>")
    assert uri.startswith("mailto:bounces@example.com?subject=unsubscribe%20")
    assert verified(uri.rpartition("%20")[2]).purpose is Purpose.UNSUBSCRIBE


def test_a_store_with_a_from_of_its_own_names_the_sender() -> None:
    _, message = letter(from_="news@example.com")
    assert message["From"].addresses[0].addr_spec == "news@example.com"
    assert message["Sender"].addresses[0].addr_spec == "bounces@example.com"
    _, message = letter()
    assert message["From"].addresses[0].addr_spec == "bounces@example.com"
    assert message["Sender"] is None
    assert message["Reply-To"].addresses[0].addr_spec == "hello@example.com"


@given(
    st.text(st.sampled_from(".\r\n\t x=ü"), max_size=60),
    st.text(st.sampled_from(".\r\n\t x=ü"), max_size=60),
    st.binary(max_size=60),
)
def test_a_letter_that_says_it_is_clean_holds_nothing_that_a_relay_could_mistake(
    around, value, octets
) -> None:
    files = {
        "subject.txt": b"{{ town }}",
        "text.txt": f"{around}{{{{ town }}}}{around}".encode(),
        "html.html": f"<p>{around}{{{{ town }}}}{around}</p>".encode(),
        "inline/a.png": octets,
        "attachments/.b.pdf": octets,
    }
    frame = Frame.of(
        Template("spring", files), key=KEY, day=DAY, store=store(), store_id=2, activity="spring", web=Web()
    )
    claimed = Claimed(42, 1, 7, 1, "example.org", None, "R7", "a@example.org", "A", "", {"town": value})
    [made] = compose(frame, [claimed], now=NOW)
    assert made.clean
    assert body.stuffed(made.content) is made.content
    assert body.with_crlf(made.content) is made.content


TOWNS = st.sampled_from(
    [
        "Ulm",
        "",
        "Köln",
        "<b>&",
        "two\nlines",
        "\r\n",
        ".",
        "x" * 80,
        " a ",
        "=?utf-8?q?x?=",
        "\ud800",
        7,
        None,
        False,
    ]
)
NAMES = st.sampled_from(["Anna", "", "Zoë", "a" * 90, "x\ny", '"'])
PARTS = st.lists(
    st.sampled_from(
        [
            "{{ town }}",
            "{{ name }}",
            "{{ unsubscribe_url }}",
            "{{ absent }}",
            "{% if town %}\nYes, {{ town }}.{% elif name %}{{ name }}{% else %} no{% endif %}",
            "{% if not town %}x{% endif %}",
            "{{ town | upper }}",
            "\n",
            "\n.",
            " and so on ",
            "Café <b>&amp;</b> " * 3,
            "<p>a</p><ul><li>b</ul>",
            "<!-- {{ name }} -->",
        ]
    ),
    max_size=6,
).map("".join)


@given(PARTS, PARTS | st.none(), PARTS | st.none(), st.lists(st.tuples(NAMES, TOWNS), min_size=1, max_size=5))
@settings(max_examples=300)
def test_letters_composed_together_are_those_composed_one_by_one(
    subject: str, text: str | None, html: str | None, people: list[tuple[str, Any]]
) -> None:
    files = {"subject.txt": subject, "text.txt": text, "html.html": html}
    assume(text is not None or html is not None)
    try:
        template = Template("t", {name: text.encode() for name, text in files.items() if text is not None})
    except InputError:
        assume(False)
    frame = Frame.of(template, key=KEY, day=DAY, store=store(), store_id=2, activity="spring", web=Web())
    claimed = [
        Claimed(number, 1, number, 1, "example.org", None, "", "a@example.org", name, "de", {"town": town})
        for number, (name, town) in enumerate(people)
    ]
    together = compose(frame, claimed, now=NOW)
    alone = [one for each in claimed for one in compose(frame, [each], now=NOW)]
    assert list(map(_shown, together)) == list(map(_shown, alone))
    for each, letter in zip(claimed, together, strict=True):
        values = {
            "town": each.attributes["town"],
            "name": each.name,
            "unsubscribe_url": _url(each.recipient_id),
        }
        assert_says(letter, template, values)


def _url(recipient_id: int) -> str:
    token = tokens.for_unsubscribe(KEY, recipient_id, store=2)
    return f"mailto:bounces+{token}@example.com?subject=unsubscribe"


def _shown(letter: object) -> object:
    return str(letter) if isinstance(letter, Exception) else letter


def assert_says(letter: object, template: Template, values: Mapping[str, Any]) -> None:
    """Assert that a letter says what Jinja2 makes of the template, or tells the same fault."""
    if isinstance(letter, TemplateFault):
        with pytest.raises(TemplateFault, match=re.escape(str(letter))):
            template.render(values)
        return
    rendered = template.render(values)
    if isinstance(letter, MessageFault):
        return
    assert isinstance(letter, Letter)
    message = email.message_from_bytes(letter.content, policy=policy.default)
    assert message["Subject"] == rendered.subject
    for subtype, said in (("plain", rendered.text), ("html", rendered.html)):
        part = message.get_body((subtype,))
        assert (part is None) == (said is None)
        if part is not None and said is not None:
            lines = said.replace("\r\n", "\n").replace("\r", "\n")
            assert part.get_content().replace("\r\n", "\n") == (
                lines if lines.endswith("\n") else f"{lines}\n"
            )


def test_a_template_sees_the_recipient_and_what_everybody_has() -> None:
    text = "{{ town }} {{ name }} {{ address }} {{ external_id }} {{ locale }} {{ store }} {{ activity }}"
    _, message = letter(text=text)
    assert message.get_content().strip() == "Ulm Anna anna@example.org R7 de Example News spring"


def test_a_missing_value_is_a_fault_that_names_it() -> None:
    with pytest.raises(TemplateFault, match=r"'first_name' is missing in text\.txt"):
        letter(text="{{ first_name }}")


def test_a_local_part_beyond_ascii_asks_for_smtputf8() -> None:
    assert letter(address="jörg@example.org")[0].utf8
    assert not letter()[0].utf8
