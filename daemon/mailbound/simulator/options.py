"""What a simulator can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(kw_only=True, eq=False)
class Options:
    """What a simulator can be told; what is about recipients and replies may be changed while it runs.

    Without a certificate there is no TLS. With one, `tls` says whether clients ask for it by
    STARTTLS and STLS, or begin with it.
    """

    host: str = "127.0.0.1"
    smtp_port: int = 0  # 0: any free one, to be read here after the start
    pop3_port: int = 0
    hostname: str = "relay.simulator.test"

    bounce_rate: float = 0.0  # share of ordinary addresses that bounce, 0 to 1
    seed: int = 0  # which addresses those are: the same seed picks the same ones
    form: str | None = None  # whose reports to write (see reports.FORMS); None: as the domain has it
    delay_seconds: float = 0.2  # from acceptance to the report
    keep: int = 1000  # how many accepted messages to remember

    latency_seconds: float = 0.0  # before every reply
    slow_seconds: float = 2.0  # before the reply that `slow@` gives to the final dot
    fail_final: float = 0.0  # share of messages that are taken, but whose reply never comes, 0 to 1
    refuse_connections: bool = False  # greet with 421 and hang up
    size_limit_octets: int = 26_214_400

    certificate: Path | None = None
    key: Path | None = None  # None: it stands in the certificate's file
    tls: Literal["starttls", "implicit"] = "starttls"
