"""What `activity preview` and `activity test` share: one message, composed as the daemon would."""

from __future__ import annotations

import asyncio
import email
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from email import policy
from pathlib import Path
from typing import TYPE_CHECKING

from mailbound.errors import InputError, RelayError
from mailbound.model import Letter, Reply

if TYPE_CHECKING:
    from mailbound.config import Store
    from mailbound.database.engine import Database

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True, slots=True)
class Message:
    """A composed message, and the store that sends it."""

    letter: Letter
    store: Store

    @property
    def content(self) -> bytes:
        """Return the message as it goes over the wire."""
        return self.letter.content


def compose(
    path: Path, database: Database, name: str, recipient: str | None, *, to: str | None = None
) -> Message:
    """Return the message of an activity for one recipient (None: any of its segment), perhaps sent elsewhere.

    Its tokens are of no delivery, so whatever comes back of it changes nobody.
    """
    from mailbound import address as addresses
    from mailbound import config, tokens
    from mailbound.database import activities, recipients, segments, token_keys
    from mailbound.database.claims import Claimed
    from mailbound.outbound import composer
    from mailbound.template import Template, TemplateFault

    settings = config.load(path, secrets=to is not None)
    now = datetime.now(UTC)
    with database.begin() as connection:
        activity = activities.find(connection, name)
        key = token_keys.signing(connection, now=now)
        if recipient is None:
            person = next(
                segments.each(connection, segments.find(connection, activity.segment), limit=1), None
            )
            if person is None:
                raise InputError(f"nobody is in segment {activity.segment}; name somebody with --recipient")
        else:
            person = recipients.find(connection, recipient)
    store = settings.stores.get(activity.store)
    if store is None:
        raise InputError(
            f"{path}: stores.{activity.store}: {activity.name} needs it, and it is not there any more"
        )
    frame = composer.Frame.of(
        Template.load(settings.templates.folder / activity.template),
        key=key,
        day=tokens.day_number(now),
        store=store,
        store_id=activity.store_id,
        activity=activity.name,
        web=settings.web,
    )
    claimed = Claimed(
        id=0,
        run_id=0,
        recipient_id=0,
        attempt=1,
        domain="",
        slot_at=None,
        external_id=person.external_id,
        address=addresses.normalise(to).given if to else person.address,
        name=person.name,
        locale=person.locale,
        attributes=person.attributes,
    )
    [letter] = composer.compose(frame, [claimed], now=now)
    if isinstance(letter, TemplateFault):
        raise InputError(f"template {activity.template}: {letter}, for {person.external_id}")
    if isinstance(letter, InputError):
        raise letter
    return Message(letter, store)


async def send(message: Message) -> Reply:
    """Send a message through its store's relay and return the reply. Raises RelayError if it was not accepted."""
    from mailbound import relay, sessions
    from mailbound.model import Result

    async def granted() -> bool:
        await asyncio.sleep(0)
        return True

    outbound = message.store.outbound
    try:
        session = await relay.open(sessions.account(message.store))
    except RelayError as error:
        raise RelayError(f"{outbound.host}:{outbound.port}: {error}") from None
    outcome = await session.transact(message.letter, granted)
    await session.quit()
    if outcome.result is not Result.ACCEPTED or outcome.reply is None:
        raise RelayError(f"{outbound.host}:{outbound.port}: {outcome.reply or outcome.why} ({outcome.phase})")
    return outcome.reply


def browser() -> str | None:
    """Return the path of a browser that can draw a picture, None if none is installed."""
    return next((found for name in _BROWSERS if (found := shutil.which(name))), None)


def picture(message: Message, file: Path) -> bool:
    """Draw the HTML part of a message into a PNG file; return False if it has none, or no browser did it."""
    program = browser()
    parsed = email.message_from_bytes(message.content, policy=policy.default)
    html = parsed.get_body(("html",))
    if program is None or html is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "message.html"
        page.write_text(_with_images(html.get_content(), parsed, Path(folder)), "utf-8")
        command = [
            program,
            "--headless",
            "--disable-gpu",
            *(["--no-sandbox"] if os.getuid() == 0 else []),  # it refuses to run as root with one
            "--hide-scrollbars",
            "--window-size=700,1000",
            f"--user-data-dir={folder}/profile",
            f"--screenshot={file.absolute()}",
            page.as_uri(),
        ]
        try:
            done = subprocess.run(command, capture_output=True, check=False, timeout=60)
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0 and file.exists()


def _with_images(html: str, parsed: email.message.EmailMessage, folder: Path) -> str:
    """Return the HTML with its inline images read from files beside it."""
    for number, part in enumerate(parsed.walk()):
        content_id = part["Content-ID"]
        if content_id and part.get_content_maintype() == "image":
            image = folder / f"image{number}"
            image.write_bytes(part.get_content())
            html = html.replace(f"cid:{str(content_id).strip('<>')}", image.as_uri())
    return re.sub(r"(?i)<script\b.*?</script>", "", html, flags=re.DOTALL)
