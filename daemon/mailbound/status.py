"""Enhanced mail system status codes (RFC 3463), as values that can be compared."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from mailbound.model import Reply

# The grammar of RFC 3463 §2, wherever it stands in a text. What touches it on either side tells it from an IP
# address, a date, a version ("Exim 4.96.1", "smtpd 5.7.1-2", "v4.2.0") and the middle of a longer word.
# The digit comes first, since that is quick to look for, so each look behind it begins with one character more.
_STATUS = re.compile(
    r"""([245]) \. (?<![\w.@/]..) (?<![a-z]-..)
        (?<!version\ ..) (?<!release\ ..) (?<!exim\ ..) (?<!postfix\ ..) (?<!sendmail\ ..) (?<!smtpd\ ..)
        (0|[1-9]\d{0,2}) \. (0|[1-9]\d{0,2})
        (?![\w@] | [./-]\d)""",
    re.VERBOSE | re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True, order=True)  # without slots, since it is pickled with each report
class StatusCode:
    """`class.subject.detail`, for example 5.1.1 (RFC 3463 §2)."""

    class_: int  # 2 success, 4 persistent transient failure, 5 permanent failure
    subject: int  # 0..999: 1 addressing, 2 mailbox, 3 system, 4 network, 5 protocol, 6 content, 7 policy
    detail: int  # 0..999

    def __str__(self) -> str:
        """Return it as it stands in a reply."""
        return f"{self.class_}.{self.subject}.{self.detail}"

    @classmethod
    def find(cls, text: str) -> StatusCode | None:
        """Return the first status code in `text`, or None. An IP address or a version number is not one."""
        match = _STATUS.search(text)
        return _code(*match.groups()) if match else None

    @classmethod
    def find_failure(cls, text: str) -> StatusCode | None:
        """Return the first status code in `text` that is none of success, or None: a transcript shows both."""
        matches = _STATUS.finditer(text)
        return next((_code(*match.groups()) for match in matches if match[1] != "2"), None)

    @classmethod
    def of_reply(cls, reply: Reply) -> StatusCode | None:
        """Return the first code in `reply` whose class is that of the reply (RFC 2034 §4), or None."""
        for line in reply.text.splitlines():
            found = cls.find(line)
            if found and found.class_ == reply.code // 100:
                return found
        return None

    @property
    def is_bare(self) -> bool:
        """Tell whether it says no more than its class, as in 5.0.0 (RFC 3463 §3.1)."""
        return self.subject == 0 and self.detail == 0


@functools.lru_cache(maxsize=1024)  # the reports of a day have few, and one that is the same is pickled once
def _code(class_: str, subject: str, detail: str) -> StatusCode:
    return StatusCode(int(class_), int(subject), int(detail))
