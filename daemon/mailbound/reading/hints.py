"""What flufl.bounce makes of a mail that says nothing to us: a hint, and never more.

Its detectors know addresses only, so the status is unknown and the verdict will be unclear. They run one by one,
since each raises on some mail, and what they name must stand in the mail.
"""

from __future__ import annotations

from collections.abc import Iterable
from email import message_from_bytes
from email.message import Message

from flufl.bounce import _scan

from mailbound.model import Action
from mailbound.reading import naming
from mailbound.reading.mail import Mail
from mailbound.reading.report import RecipientReport

SIZE_LIMIT = 64 * 1024  # its regular expressions and the standard parser are slow on more

PARTS_LIMIT = 20
LINES_LIMIT = 2000

# DSNs were read before, and better; the last one takes any address between two commas for a bounce.
_LEFT_OUT = frozenset({"DSN", "LLNL"})
# Its public API stops at the first detector that raises.
_DETECTORS = [detector for detector in _scan._DETECTORS if detector.__name__ not in _LEFT_OUT]  # noqa: SLF001


def read(raw: bytes, mail: Mail) -> tuple[str, tuple[RecipientReport, ...]]:
    """Return the name of the detector that found something, and what; ("", ()) if none did."""
    if mail.part.parts_read > PARTS_LIMIT:
        return "", ()
    try:
        message = message_from_bytes(b"\n".join(raw[:SIZE_LIMIT].split(b"\n", LINES_LIMIT)[:LINES_LIMIT]))
    except Exception:  # noqa: BLE001 - hostile structure: the parser recurses, and looks up whatever it is told to
        return "", ()
    for detector in _DETECTORS:
        temporary, permanent = _run(detector, message)
        found = _standing(temporary, Action.DELAYED, mail) + _standing(permanent, Action.FAILED, mail)
        if found:
            return detector.__name__.lower(), tuple(found)
    return "", ()


def _run(detector: type, message: Message) -> tuple[Iterable[bytes], Iterable[bytes]]:
    try:
        temporary, permanent = detector().process(message)
        return list(temporary), list(permanent)
    except Exception:  # noqa: BLE001 - whatever a detector trips over, the next one may not
        return (), ()


def _standing(found: Iterable[bytes], action: Action, mail: Mail) -> list[RecipientReport]:
    names = sorted({address.decode("utf-8", "replace") for address in found})
    text = "\n".join(leaf.text for leaf in mail.leaves).lower()
    return [
        RecipientReport(
            final_recipient=name, action=action, diagnostic_code=" ".join(mail.said_of(name).split())
        )
        for name in names
        if "@" in name and name.lower() in text and naming.is_recipient(name, mail)
    ]
