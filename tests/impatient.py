"""The program with little patience: for what a relay may take minutes, it waits two seconds. It is run as a file.

It comes back sooner, too, and looks around ten times as often.
"""

from __future__ import annotations

from mailbound import cli, node, pacing, relay, scheduler
from mailbound.outbound import courier

SECONDS = 2.0
"""How long it waits for a reply; long enough for a relay that is there."""


def main() -> None:
    """Run the command line, after a change of what is waited for by default."""
    phases = ("connect", "hello", "mail", "rcpt", "data", "block", "final_dot", "rset", "quit")
    short = relay.Deadlines(**dict.fromkeys(phases, SECONDS), octets_per_second=1e9)
    relay.Account.__init__.__kwdefaults__["deadlines"] = short
    pacing.Concurrency.__init__.__kwdefaults__ |= {"interval": 0.5, "settle": 0.1}
    relay.Relay.__init__.__kwdefaults__["reconnect"] = pacing.Backoff(first=0.1, cap=30.0)
    courier._FRESH_SECONDS = SECONDS
    node.BEAT_SECONDS = 0.5
    scheduler._TICK_SECONDS = 0.1
    cli.main()


if __name__ == "__main__":
    main()
