"""What reading one mail may cost, whoever reads it: the worker of the daemon, or a command in its own process."""

from __future__ import annotations

import contextlib
import resource
import signal
from collections.abc import Iterator

from mailbound.errors import MailboundError

SECONDS = 10.0
MEMORY_OCTETS = 1 << 30  # of addresses; what the program itself takes is among them


class Unreadable(MailboundError):
    """A mail killed its reader, or took too long."""


class _TimeIsUp(BaseException):
    """No `except Exception` on the way may swallow it."""


@contextlib.contextmanager
def kept(name: str, *, seconds: float = SECONDS, memory_octets: int = MEMORY_OCTETS) -> Iterator[None]:
    """Hold this process to its bounds while it reads the mail `name`; only its main thread can.

    Raises Unreadable where the mail is too much.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_least(memory_octets, soft), hard))
    before = signal.signal(signal.SIGALRM, _stop)
    left = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _TimeIsUp:
        raise Unreadable(f"{name} is too much to read: it takes longer than {seconds:g} s") from None
    except (MemoryError, RecursionError) as error:
        raise Unreadable(f"{name} is too much to read: {type(error).__name__}") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *left)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _least(wanted: int, allowed: int) -> int:
    return wanted if allowed == resource.RLIM_INFINITY else min(wanted, allowed)


def _stop(*_: object) -> None:
    raise _TimeIsUp
