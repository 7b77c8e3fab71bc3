"""From a claimed delivery to the letter that goes over the wire: tokens, template, message."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
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

    async def compose(self, delivery: Claimed, run: Run, activity: Activity) -> Letter:
        """Return the letter of a delivery, as its recipient is now. Raises as `compose` does."""
        frame = self._frames.get((run.id, run.key_id)) or await self._prepare(run, activity)
        return compose(frame, delivery, now=self._clock())

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


def compose(frame: Frame, delivery: Claimed, *, now: datetime) -> Letter:
    """Return the letter of a delivery.

    Raises TemplateFault if the template cannot be filled for its recipient, MessageFault if a value cannot stand in a
    message.
    """
    store = frame.store
    wish = tokens.for_unsubscribe(frame.key, delivery.recipient_id, store=frame.store_id)
    url = f"{frame.unsubscribe_url}{wish}" if frame.unsubscribe_url else _unsubscribe_mailto(store, wish)
    rendered = frame.template.render(_values(frame, delivery, url))
    content = message.compose(
        frame.sender,
        message.Mailbox(delivery.address, delivery.name),
        rendered,
        frame.enclosures,
        message_id=frame.message_id.fill(_token(frame, Purpose.MESSAGE_ID, delivery)),
        date=now,
        unsubscribe=frame.unsubscribe.fill(wish),
    )
    return Letter(
        delivery_id=delivery.id,
        attempt=delivery.attempt,
        return_path=_return_path(store, _token(frame, Purpose.RETURN_PATH, delivery)),
        recipient=delivery.address,
        envid=_token(frame, Purpose.ENVID, delivery),
        content=content,
        utf8=not delivery.address.isascii(),
        clean=True,
    )


def _values(frame: Frame, delivery: Claimed, unsubscribe_url: str) -> dict[str, Any]:
    """Return what a template can use: the recipient's attributes, and what every recipient has."""
    return {
        **delivery.attributes,
        "external_id": delivery.external_id,
        "address": delivery.address,
        "name": delivery.name,
        "locale": delivery.locale,
        "unsubscribe_url": unsubscribe_url,
        **frame.shown,
    }


def _token(frame: Frame, purpose: Purpose, delivery: Claimed) -> str:
    return tokens.for_delivery(frame.key, purpose, delivery.id, attempt=delivery.attempt, day=frame.day)


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
