"""From a claimed delivery to the letter that goes over the wire: tokens, template, message."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from urllib.parse import quote

from mailbound import message, tokens
from mailbound.config import Store, Web
from mailbound.database import runs, token_keys
from mailbound.database.activities import Activity
from mailbound.database.claims import Claimed
from mailbound.database.engine import Database
from mailbound.database.runs import Run
from mailbound.errors import InputError
from mailbound.model import Letter
from mailbound.template import Template
from mailbound.tokens import Key, Purpose

_KEPT = 16
"""How many runs' templates are kept ready."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What all letters of a run share."""

    template: Template
    enclosures: message.Enclosures
    sender: message.Sender
    message_id: message.Mould
    unsubscribe: message.Mould
    key: Key
    day: int
    store: Store
    store_id: int
    shown: Mapping[str, str]
    """What a template may say of the store and the activity."""
    unsubscribe_url: str | None

    @classmethod
    def of(
        cls, template: Template, *, key: Key, day: int, store: Store, store_id: int, activity: str, web: Web
    ) -> Self:
        """Prepare what is the same in all letters. Raises MessageFault for a value that no message can carry."""
        sender = message.Sender.of_store(
            name=store.name,
            own=store.from_,
            inbound=store.inbound.address,
            outbound=store.outbound.address,
            list_id=store.list_id,
        )
        enclosures = message.enclose(template)
        url = web.unsubscribe_url
        mailto = _unsubscribe_mailto(store, message.PLACE)
        return cls(
            template,
            enclosures,
            sender,
            message.message_id(f"{message.PLACE}@{store.inbound.address.rpartition('@')[2]}"),
            message.unsubscribe(mailto, f"{url}{message.PLACE}" if url else None),
            key,
            day,
            store,
            store_id,
            {"store": store.name, "activity": activity},
            url,
        )


class Composer:
    """Composes the letters of one store."""

    def __init__(
        self, database: Database, store: Store, *, store_id: int, web: Web, clock: Callable[[], datetime]
    ) -> None:
        """Keep no run ready yet."""
        self._database = database
        self._store = store
        self._store_id = store_id
        self._web = web
        self._clock = clock
        self._frames: OrderedDict[tuple[int, int | None], Frame] = OrderedDict()  # a key may be revoked

    async def compose(
        self, deliveries: Sequence[Claimed], run: Run, activity: Activity
    ) -> list[Letter | InputError]:
        """Return for each delivery of a run its letter, as its recipient is now, or why it has none: see `compose`."""
        try:
            frame = await self._frame(run, activity)
        except InputError as fault:
            return [fault for _ in deliveries]
        return compose(frame, deliveries, now=self._clock())

    async def enclosed_octets(self, run: Run, activity: Activity) -> int:
        """Return how much the images and attachments take in each letter of a run; 0 if it can have none."""
        try:
            enclosures = (await self._frame(run, activity)).enclosures
        except InputError:
            return 0
        return sum(map(len, (*enclosures.inline, *enclosures.attachments)))

    async def _frame(self, run: Run, activity: Activity) -> Frame:
        return self._frames.get((run.id, run.key_id)) or await self._prepare(run, activity)

    async def _prepare(self, run: Run, activity: Activity) -> Frame:
        content = await self._database.read(runs.frozen_template, run.template_id or 0)
        keys = await self._database.read(token_keys.verifying)
        frame = Frame.of(
            Template.thaw(content),
            key=keys[run.key_id or 0],
            day=run.day or 0,
            store=self._store,
            store_id=self._store_id,
            activity=activity.name,
            web=self._web,
        )
        self._frames[run.id, run.key_id] = frame
        if len(self._frames) > _KEPT:
            self._frames.popitem(last=False)
        return frame


def compose(frame: Frame, deliveries: Sequence[Claimed], *, now: datetime) -> list[Letter | InputError]:
    """Return for each delivery its letter, or why it has none.

    That is a TemplateFault if the template cannot be filled for its recipient, a MessageFault if a value cannot stand
    in a message.
    """
    try:
        return list(_letters(frame, deliveries, now=now))
    except InputError as fault:
        if len(deliveries) == 1:
            return [fault]
    return [one for delivery in deliveries for one in compose(frame, [delivery], now=now)]


def _letters(frame: Frame, deliveries: Sequence[Claimed], *, now: datetime) -> Iterator[Letter]:
    """Yield the letters of deliveries. Raises InputError for the first that cannot be composed."""
    attempts = [(delivery.id, delivery.attempt) for delivery in deliveries]
    return_paths = _tokens(frame, Purpose.RETURN_PATH, attempts)
    envids = _tokens(frame, Purpose.ENVID, attempts)
    contents = _contents(frame, deliveries, _tokens(frame, Purpose.MESSAGE_ID, attempts), now=now)
    for delivery, return_path, envid, content in zip(deliveries, return_paths, envids, contents, strict=True):
        yield Letter(
            delivery_id=delivery.id,
            attempt=delivery.attempt,
            return_path=_return_path(frame.store, return_path),
            recipient=delivery.address,
            envid=envid,
            content=content,
            utf8=not delivery.address.isascii(),
            clean=True,
        )


def _contents(
    frame: Frame, deliveries: Sequence[Claimed], message_ids: Sequence[str], *, now: datetime
) -> list[bytes]:
    """Return the messages of deliveries. Those that differ in their values alone are composed together."""
    recipients = [delivery.recipient_id for delivery in deliveries]
    wishes = tokens.for_unsubscribes(frame.key, recipients, store=frame.store_id)
    rows = [_values(frame, *pair) for pair in zip(deliveries, wishes, strict=True)]
    contents = [b""] * len(rows)
    for sheet in frame.template.render_all(rows):
        these = [deliveries[number] for number in sheet.numbers]
        messages = message.compose(
            frame.sender,
            [message.Mailbox(delivery.address, delivery.name) for delivery in these],
            sheet,
            frame.enclosures,
            message_ids=frame.message_id.fill(message_ids[number] for number in sheet.numbers),
            date=now,
            unsubscribes=frame.unsubscribe.fill(wishes[number] for number in sheet.numbers),
        )
        for number, content in zip(sheet.numbers, messages, strict=True):
            contents[number] = content
    return contents


def _values(frame: Frame, delivery: Claimed, wish: str) -> dict[str, Any]:
    """Return what a template can use: the recipient's attributes, and what every recipient has."""
    url = frame.unsubscribe_url
    return {
        **delivery.attributes,
        "external_id": delivery.external_id,
        "address": delivery.address,
        "name": delivery.name,
        "locale": delivery.locale,
        "unsubscribe_url": f"{url}{wish}" if url else _unsubscribe_mailto(frame.store, wish),
        **frame.shown,
    }


def _tokens(frame: Frame, purpose: Purpose, attempts: Sequence[tuple[int, int]]) -> list[str]:
    return tokens.for_deliveries(frame.key, purpose, attempts, day=frame.day)


def _return_path(store: Store, token: str) -> str:
    """Return our envelope sender. Without subaddressing ENVID and Message-ID must carry the token alone."""
    if not store.inbound.subaddressing:
        return store.inbound.address
    local_part, _, domain = store.inbound.address.rpartition("@")
    return f"{local_part}+{token}@{domain}"


def _unsubscribe_mailto(store: Store, token: str) -> str:
    if store.inbound.subaddressing:
        return f"mailto:{_return_path(store, token)}?subject=unsubscribe"
    return f"mailto:{store.inbound.address}?subject={quote(f'unsubscribe {token}')}"
