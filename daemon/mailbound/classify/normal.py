"""A text as the rules want it: lower case, single blanks, nobody's name, no codes between its words."""

from __future__ import annotations

import re

LIMIT = 4000
"""How many characters of a text are judged."""

SOMEONE = "someone@somewhere"
"""Stands for every address: what somebody is called decides nothing."""

_ADDRESS = re.compile(r"[^\s<>()\[\],;:\"'@]{1,64}@[\w-]+(?:\.[\w-]+)*")

# A reply of several lines carries its code before each of them, in the middle of a sentence (RFC 5321 §4.2.1).
_CODE_AGAIN = re.compile(
    r"(?<=[^\s:]) [245][0-5]\d(?:-(?:[245]\.\d{1,3}\.\d{1,3} )?| [245]\.\d{1,3}\.\d{1,3} )"
)

# IronPort puts the registry's words for its own code before what the other server said: `5.1.0 - Unknown address
# error 550-'the reply'`.
_IRONPORT = re.compile(r"^[245]\.\d\.\d - [a-z ]+ (?=[245]\d\d[- ]['\"])")


def text(written: str) -> str:
    """Return `written` as the rules want it, cut at `LIMIT`."""
    lower = written[:LIMIT].lower()
    if "@" in lower:
        lower = _ADDRESS.sub(SOMEONE, lower)
    plain = " ".join(lower.replace("_", " ").split())  # USER_UNKNOWN is words as well
    return _CODE_AGAIN.sub(" ", _IRONPORT.sub("", plain))
