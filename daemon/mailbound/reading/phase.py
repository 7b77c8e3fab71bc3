"""In which phase of its transaction a remote server refused, where the report says so.

A refusal of RCPT is about the recipient more often than not; one of the message's end is about what stands in it.
"""

from __future__ import annotations

import re
from enum import StrEnum


class Phase(StrEnum):
    """The step of RFC 5321 that the refusal answered."""

    CONNECT = "connect"
    HELO = "helo"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    END = "end-of-data"


_COMMAND = (
    r"(?P<step>initial connection|(?:end|termination) of data|the final dot|(?:ehlo|helo|mail|rcpt|data)\b)"
)
_ANSWERED = re.compile(
    rf"\b(?:in reply to|(?:error|server|replied|responded) (?:\S+ ){{0,6}}(?:after|for|following|to)|during|stage:) "
    rf"(?:sending |pipelined |the ){{0,3}}{_COMMAND}"
)
_ANSWERS = ("in reply to", "error ", "server ", "replied ", "responded ", "during", "stage:")
"""The words one of which is before each step: they are found in no time."""

_MARKED = re.compile(r"\[(?P<step>mail|rcpt|data)_?(?:from|to)?\]\s*\Z")
_TRANSCRIPT = re.compile(
    r"(?:>>>|sent:|-->)\s*(?P<step>ehlo|helo|mail|rcpt|data)\b[^\n]{0,300}\n\s*(?:<<<|received:|<--)\s*[45]"
)

_STEPS = {
    "initial connection": Phase.CONNECT,
    "ehlo": Phase.HELO,
    "helo": Phase.HELO,
    "mail": Phase.MAIL,
    "rcpt": Phase.RCPT,
    "data": Phase.DATA,
}


def told(text: str) -> Phase | None:
    """Return the phase that `text`, in lower case, names as refused; None if it names none."""
    match = _answered(text) or _MARKED.search(text)
    if match is None and (">>>" in text or "-->" in text or "sent:" in text):
        match = _TRANSCRIPT.search(text)
    return _STEPS.get(match["step"], Phase.END) if match else None


def _answered(text: str) -> re.Match[str] | None:
    for word in _ANSWERS:
        if word in text:
            return _ANSWERED.search(text)
    return None
