"""What one inbound mail says, as values. The names are those of RFC 3464.

They come from the process of the reader, and have no slots: what has them is pickled by Python code.
"""

from __future__ import annotations

from dataclasses import dataclass

from mailbound.model import Action, Kind
from mailbound.reading.phase import Phase
from mailbound.status import StatusCode


@dataclass(frozen=True)
class RecipientReport:
    """What became of the message for one recipient (RFC 3464 §2.3). A field that is not there is empty."""

    final_recipient: str
    original_recipient: str = ""
    action: Action = Action.FAILED
    status: StatusCode | None = None
    diagnostic_code: str = (
        ""  # the text behind its type, on one line; from the prose where the field is missing
    )
    diagnostic_type: str = ""  # `smtp`, or what else the reporting MTA calls its text
    remote_mta: str = ""
    last_attempt_date: str = ""
    will_retry_until: str = ""
    final_log_id: str = ""
    phase: Phase | None = None  # where the remote server refused, if the report says so

    @property
    def recipient(self) -> str:
        """Return the address as the sender wrote it, as far as the report knows (RFC 3464 §2.3.1)."""
        return self.original_recipient or self.final_recipient


@dataclass(frozen=True)
class Report:
    """What one inbound mail says: its kind, and a report for each recipient that it speaks of."""

    kind: Kind
    recipients: tuple[RecipientReport, ...] = ()
    reporting_mta: str = ""
    original_envelope_id: str = ""
    returned_message_ids: tuple[str, ...] = ()  # from the returned message only, never from In-Reply-To
    delivered_to: tuple[str, ...] = ()  # the addresses that this mail itself was sent to, the surest first
    feedback_type: str = ""  # RFC 5965 §3.1
    part: str = ""  # who spoke: `dsn`, `arf`, `prose:qmail`, `flufl:yahoo`, ...
    subject: str = ""
    sender: str = ""
    why: str = ""  # one sentence for people
