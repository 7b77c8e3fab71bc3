"""From a claimed delivery to the octets on the wire: ours against Jinja2 and EmailMessage, the same letter."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime
from functools import partial
from typing import Any

import jinja2

import figures
import stage
from figures import Figure, Scale
from mailbound import tokens
from mailbound.config import Inbox, Outbound, Store, Web
from mailbound.database.claims import Claimed
from mailbound.model import Letter
from mailbound.outbound import composer
from mailbound.template import Template
from stage import LETTER

_UNSUBSCRIBE = "https://news.sender.test/u/"
_TOGETHER = 64  # as the daemon does
_SLOWER = 20
"""The other side gets only this part of the letters: it is slow."""


def measure(scale: Scale) -> Iterator[Figure]:
    """Return how much less processor time our letter takes."""
    count = max(scale.messages, _SLOWER)
    ours = letters(tokens.Key(0, b"k" * 32), day=tokens.day_number(datetime.now(UTC)))
    sides = {
        "ours": partial(_seconds, ours, count, together=_TOGETHER),
        "theirs": partial(_seconds, _theirs(), count // _SLOWER, together=1),
    }
    seen = figures.take_turns(sides, scale.rounds)
    microseconds = {name: [value * 1e6 for value in values] for name, values in seen.items()}
    beside = figures.medians(us=microseconds["ours"], email_message_us=microseconds["theirs"])
    name = "Jinja2 + EmailMessage / render + compose, processor time"
    yield Figure(name, figures.ratios(seen["theirs"], seen["ours"]), 25, beside=beside)


def _seconds(compose: Callable[[range], object], count: int, *, together: int) -> float:
    """Return the processor time of one letter."""
    before = time.process_time()
    for number in range(1, count + 1, together):
        compose(range(number, number + together))
    return (time.process_time() - before) / count


def _attributes(number: int) -> dict[str, Any]:
    return {
        "city": f"City {number % 500}",
        "points": number % 5000,
        "gold": number % 3 == 0,
        "since": f"20{10 + number % 16}-03-21",
        "until": "31 May",
        "voucher": f"SPRING-{number}",
    }


def _name(number: int) -> str:
    return f"{'Anna Carter' if number % 4 else 'Zoë Müller'} {number}"


def letters(key: tokens.Key, *, day: int) -> Callable[[range], list[Letter]]:
    """Return what composes the letters of deliveries that have the numbers of their recipients; see `stage`."""
    inbox = Inbox(address="bounces@sender.test", host="localhost", username="bounces", tls="insecure")
    outbound = Outbound(address="hello@sender.test", host="localhost", tls="insecure")
    frame = composer.Frame.of(
        Template.load(LETTER),
        key=key,
        day=day,
        store=Store(name="Example News", list_id="news.sender.test", outbound=outbound, inbound=inbox),
        store_id=1,
        activity="spring",
        web=Web(unsubscribe_url=_UNSUBSCRIBE),
    )

    def compose(numbers: range) -> list[Letter]:
        made = composer.compose(frame, list(map(_delivery, numbers)), now=datetime.now(UTC))
        return [letter for letter in made if isinstance(letter, Letter)]

    return compose


def _delivery(number: int) -> Claimed:
    return Claimed(
        id=number,
        run_id=1,
        recipient_id=number,
        attempt=1,
        domain=stage.domain_of(number),
        slot_at=None,
        external_id=f"c{number}",
        address=f"person{number}@{stage.domain_of(number)}",
        name=_name(number),
        locale="",
        attributes=_attributes(number),
    )


def _theirs() -> Callable[[range], bytes]:
    html_files = jinja2.Environment(loader=jinja2.FileSystemLoader(LETTER), autoescape=True)
    text_files = jinja2.Environment(loader=jinja2.FileSystemLoader(LETTER), autoescape=False)
    subject, text = (text_files.get_template(name) for name in ("subject.txt", "text.txt"))
    html = html_files.get_template("html.html")

    def compose(numbers: range) -> bytes:
        [number] = numbers
        token = f"{number:040}"
        url = f"{_UNSUBSCRIBE}{token}"
        values = _attributes(number) | {
            "name": _name(number),
            "store": "Example News",
            "unsubscribe_url": url,
        }
        message = EmailMessage(policy.SMTP)
        message["From"] = "Example News <bounces@sender.test>"
        message["To"] = f"{_name(number)} <person{number}@domain.test>"
        message["Reply-To"] = "hello@sender.test"
        message["Subject"] = subject.render(values)
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Message-ID"] = f"<{token}@sender.test>"
        message["List-Id"] = "Example News <news.sender.test>"
        message["List-Unsubscribe"] = f"<{url}>"
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        message.set_content(text.render(values))
        message.add_alternative(html.render(values), subtype="html")
        return message.as_bytes()

    return compose
