"""A tap before a real server, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ledger_relay import Tap


@contextmanager
def tapped(port: int) -> Iterator[Tap]:
    """Give a tap before a server, and stop it in the end."""
    tap, loop = Tap(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(tap.start(port), loop).result(10)
        yield tap
    finally:
        asyncio.run_coroutine_threadsafe(tap.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
