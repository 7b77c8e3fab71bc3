"""The inbound loops: fetch, one for each store; then read → classify → correlate → decide → record, one for all.

Between the two stands a table. Nothing is deleted from a mailbox before it is kept there, and no mail that cannot be
read keeps another from being fetched.
"""

from mailbound.inbound.fetcher import Fetcher
from mailbound.inbound.reader import Reader
from mailbound.inbound.recorder import Recorder

__all__ = ["Fetcher", "Reader", "Recorder"]
