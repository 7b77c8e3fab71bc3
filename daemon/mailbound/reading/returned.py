"""How a text gives a message back: below a line that says so, behind a mark on each line, or as its mere header."""

from __future__ import annotations

import re

from mailbound.reading import phrases

HEADER_LIMIT = 4000
"""Within how many characters a header shows that it is one."""

_MARK = re.compile(r"[ \t]*[>|*][ \t]?|[ \t]+")
_HEADER = re.compile(r"(?:[A-Za-z][\w-]*:[ \t].*(?:\n|\Z)(?:[ \t].*(?:\n|\Z)){0,50}){3}")
_STATUS = re.compile(r"(?m)^(?:reporting-mta|final-recipient|original-recipient|action|remote-mta)[ \t]*:")


def cut(text: str) -> tuple[str, str]:
    """Return what stands before the message that `text` gives back, and that message; "" if it gives none."""
    match = phrases.RETURNED_BELOW.search("\n" + phrases.small(text))
    if not match:
        return text, ""
    begin = match.start()  # of the newline there, hence of its line here
    line = match[0].lstrip("\n \t>*|")
    is_header = line.startswith(("received:", "return-path:"))
    return text[:begin], text[begin if is_header else match.end() - 1 :]


def is_header(text: str) -> bool:
    """Tell whether what calls itself a text is the header of a returned message, and no delivery status."""
    begin = text[:HEADER_LIMIT].lstrip()
    return bool(_HEADER.match(begin)) and not _STATUS.search(phrases.small(begin))


def unquoted(text: str) -> str:
    """Return `text` without the mark that a mailer puts before each line of what it gives back."""
    mark = _MARK.match(text)
    return text.replace("\n" + mark[0], "\n")[len(mark[0]) :] if mark else text
