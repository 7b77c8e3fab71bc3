"""How fast the daemon sends, from the database to the relay, against smtp-source with ready-made messages.

    python bench/sending.py --recipients 20000 --connections 10 --database sqlite --sink own --rounds 1
    python bench/sending.py --profile build/flames.svg       # needs py-spy; any other suffix: speedscope

A round makes a new database full of people, starts `mailbound run`, lets it mail them all, and then lets smtp-source
send as many messages of the same size through as many connections into the same sink. The rate counts from the first
accepted message to the last. One line of JSON for each round, and one with the medians.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import measures
import source
import stage
from relays import PostfixSink, Sink
from stage import Stage

OCTETS = 10_400


@dataclass(frozen=True)
class Sent:
    """What one side did in one round."""

    rate: float  # messages a second
    cpu_ms: float  # for each message
    sink_cpu_ms: float
    peak_mib: float = 0.0


def mailbound(
    sink: Sink, *, url: str, folder: Path, recipients: int, connections: int, profile: Path | None = None
) -> Sent:
    """Let a daemon mail everybody of a new database. Raises AssertionError if anybody is left out."""
    with Stage(folder, port=sink.port, url=url, connections=connections) as here:
        here.crowd(recipients)
        here.start()
        before, sink_before = measures.family_cpu_seconds(here.pid), measures.cpu_seconds(sink.process.pid)
        watching = _watch(here.pid, profile)
        here.mail("spring")
        here.await_sent("spring")
        cpu = measures.family_cpu_seconds(here.pid) - before
        sink_cpu = measures.cpu_seconds(sink.process.pid) - sink_before
        peak = measures.peak_mib(here.pid)
        if watching:
            watching.send_signal(signal.SIGINT)
            watching.wait()
        count, seconds = here.accepted()
        here.stop()
    assert count == recipients, f"{count} of {recipients} were accepted"
    if not isinstance(sink, PostfixSink):
        assert sink.count == recipients, f"the sink took {sink.count}, not {recipients}"
        seconds = sink.last - sink.first
    return Sent(recipients / seconds, cpu / recipients * 1e3, sink_cpu / recipients * 1e3, peak)


def reference(sink: Sink, *, messages: int, connections: int, size: int = OCTETS) -> Sent:
    """Let smtp-source do the same work."""
    sink_before = measures.cpu_seconds(sink.process.pid)
    pushed = source.push(sink.port, messages=messages, connections=connections, size=size)
    sink_cpu = measures.cpu_seconds(sink.process.pid) - sink_before
    return Sent(messages / pushed.seconds, pushed.cpu_seconds / messages * 1e3, sink_cpu / messages * 1e3)


def once(
    *,
    kind: str = "sqlite",
    own_sink: bool = True,
    recipients: int = 20_000,
    connections: int = 10,
    profile: Path | None = None,
) -> tuple[Sent, Sent]:
    """Return what one round brings: ours, and what smtp-source did."""
    with stage.folder() as folder, stage.database(kind, folder) as url:
        with (Sink if own_sink else PostfixSink)(folder) as sink:
            ours = mailbound(
                sink,
                url=url,
                folder=folder,
                recipients=recipients,
                connections=connections,
                profile=profile,
            )
        with (Sink if own_sink else PostfixSink)(folder) as sink:
            theirs = reference(sink, messages=recipients, connections=connections)
    return ours, theirs


def _watch(pid: int, profile: Path | None) -> subprocess.Popen[bytes] | None:
    if profile is None:
        return None
    form = "flamegraph" if profile.suffix == ".svg" else "speedscope"
    command = ["record", "--pid", str(pid), "--output", str(profile), "--format", form, "--rate", "200"]
    return subprocess.Popen([str(Path(sys.executable).with_name("py-spy")), *command], stdout=sys.stderr)


def _rounded(sent: Sent) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in asdict(sent).items()}


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and so take the daemon along
    parser = argparse.ArgumentParser(description="How fast the daemon sends, against smtp-source.")
    parser.add_argument("--recipients", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--sink", choices=["own", "postfix"], default="own")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--profile", type=Path)
    asked = parser.parse_args()
    ratios = []
    for _ in range(asked.rounds):
        ours, theirs = once(
            kind=asked.database,
            own_sink=asked.sink == "own",
            recipients=asked.recipients,
            connections=asked.connections,
            profile=asked.profile,
        )
        ratios.append((ours.rate / theirs.rate, ours.cpu_ms / theirs.cpu_ms))
        print(json.dumps({"mailbound": _rounded(ours), "smtp-source": _rounded(theirs)}), flush=True)
    rate, cpu = (measures.median(values) for values in zip(*ratios, strict=True))
    print(json.dumps({"rate_to_smtp_source": rate, "cpu_to_smtp_source": cpu}))


if __name__ == "__main__":
    main()
