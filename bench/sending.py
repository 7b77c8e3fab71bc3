"""How fast the daemon sends, from the database to the relay, against smtp-source with ready-made messages.

    python bench/sending.py --recipients 20000 --connections 10 --database sqlite --sink own --rounds 1
    python bench/sending.py --profile build/flames.svg       # needs py-spy; any other suffix: speedscope

A round makes a new database full of people, starts `mailbound run`, lets it mail them all, and then lets smtp-source
send as many messages of the same size through as many connections into the same kind of sink. The rate counts from the
first accepted message to the last. One line of JSON for each round, and one with the medians.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import figures
import measures
import profiling
import source
import stage
from figures import Figure, Scale
from relays import PostfixSink, Sink
from stage import Stage

OCTETS = 10_400
"""How large the letter is on the wire."""

_GOALS = {"sqlite": {10: 0.45, 20: 0.55, 50: 0.65}, "postgresql": {10: 0.40, 20: 0.50}}
_SLOW_MS = 5.0
"""What a commit takes longer on a slow disk."""


@dataclass(frozen=True)
class Sent:
    """What one side did in one round."""

    rate: float  # messages a second
    cpu_ms: float  # for each message
    sink_cpu_ms: float
    peak_mib: float = 0.0
    syncs: float = 0.0  # of the database, for each message


def mailbound(
    *,
    recipients: int,
    connections: int,
    kind: str = "sqlite",
    own_sink: bool = True,
    sync_delay_ms: float = 0.0,
    profile: Path | None = None,
) -> Sent:
    """Let a daemon mail everybody of a new database. Raises AssertionError if anybody is left out."""
    with (
        stage.folder() as folder,
        stage.database(kind, folder) as url,
        _sink(folder, own=own_sink) as sink,
        Stage(folder, port=sink.port, url=url, connections=connections, sync_delay_ms=sync_delay_ms) as here,
    ):
        here.crowd(recipients)
        here.start()
        before = here.cpu_seconds(), measures.cpu_seconds(sink.process.pid), here.syncs()
        watching = profiling.watch(here.pid, profile)
        here.mail("spring")
        here.await_sent("spring")
        after = here.cpu_seconds(), measures.cpu_seconds(sink.process.pid), here.syncs()
        peak = measures.peak_mib(here.pid)
        profiling.end(watching)
        count, seconds = here.accepted()
        here.stop()
        assert count == recipients, f"{count} of {recipients} were accepted"
        assert not own_sink or sink.count == recipients, f"the sink took {sink.count}, not {recipients}"
        cpu, sink_cpu, syncs = ((then - now) / recipients for now, then in zip(before, after, strict=True))
        return Sent(sink.rate if own_sink else recipients / seconds, cpu * 1e3, sink_cpu * 1e3, peak, syncs)


def reference(*, messages: int, connections: int, size: int = OCTETS, own_sink: bool = True) -> Sent:
    """Let smtp-source do the same work."""
    with stage.folder() as folder, _sink(folder, own=own_sink) as sink:
        before = measures.cpu_seconds(sink.process.pid)
        pushed = source.push(sink.port, messages=messages, connections=connections, size=size)
        sink_cpu = measures.cpu_seconds(sink.process.pid) - before
        rate = sink.rate if own_sink else messages / pushed.seconds
        return Sent(rate, pushed.cpu_seconds / messages * 1e3, sink_cpu / messages * 1e3)


def measure(scale: Scale) -> Iterator[Figure]:
    """Return end to end against smtp-source, into both sinks: rates on both databases, and the processor time."""
    for own_sink, sink in ((False, "smtp-sink"), (True, "our sink")):
        for kind, goals in _GOALS.items():
            seen = figures.take_turns(_contestants(scale, kind, goals, own_sink=own_sink), scale.rounds)
            for count, goal in goals.items():
                ours, theirs = seen[f"mailbound {count}"], seen[f"smtp-source {count}"]
                name = f"end to end, {kind}, {count} connections to {sink} / smtp-source"
                yield Figure(name, _rates(ours, theirs), goal, beside=_beside(ours, theirs))
            if kind == "sqlite" and not own_sink:
                yield from _processor(seen["mailbound 10"], seen["smtp-source 10"])


def _contestants(
    scale: Scale, kind: str, counts: Iterable[int], *, own_sink: bool
) -> dict[str, Callable[[], Sent]]:
    contestants: dict[str, Callable[[], Sent]] = {}
    for count in counts:
        contestants[f"mailbound {count}"] = partial(
            mailbound, recipients=scale.messages, connections=count, kind=kind, own_sink=own_sink
        )
        contestants[f"smtp-source {count}"] = partial(
            reference, messages=scale.messages, connections=count, own_sink=own_sink
        )
    return contestants


def measure_slow(scale: Scale) -> Iterator[Figure]:
    """Return the rate on a slow disk: 50 connections share each commit."""
    slow = partial(mailbound, recipients=scale.messages, connections=50, sync_delay_ms=_SLOW_MS)
    quick = partial(mailbound, recipients=scale.messages, connections=50)
    seen = figures.take_turns({"slow": slow, "quick": quick}, scale.rounds)
    rates = [each.rate for each in seen["slow"]]
    beside = figures.medians(
        quick_rate=[each.rate for each in seen["quick"]],
        syncs_a_message=[each.syncs for each in seen["slow"]],
        quick_syncs_a_message=[each.syncs for each in seen["quick"]],
    )
    name = f"end to end, sqlite, 50 connections, each sync {_SLOW_MS:g} ms slower"
    yield Figure(name, rates, 2000, unit="/s", beside=beside)


def _processor(ours: list[Sent], theirs: list[Sent]) -> Iterator[Figure]:
    our_cpu, their_cpu = [each.cpu_ms for each in ours], [each.cpu_ms for each in theirs]
    yield Figure("processor time a message, 10 connections", our_cpu, 0.22, unit="ms", at_most=True)
    name = "processor time / smtp-source, 10 connections"
    yield Figure(name, figures.ratios(our_cpu, their_cpu), 4, at_most=True)


def _rates(ours: list[Sent], theirs: list[Sent]) -> list[float]:
    return figures.ratios([each.rate for each in ours], [each.rate for each in theirs])


def _beside(ours: list[Sent], theirs: list[Sent]) -> dict[str, float]:
    def median(sent: list[Sent], prefix: str = "") -> dict[str, float]:
        names = [name for name, value in asdict(sent[0]).items() if value]
        return {f"{prefix}{name}": statistics.median(getattr(each, name) for each in sent) for name in names}

    return median(ours) | median(theirs, "smtp_source_")


def _sink(folder: Path, *, own: bool) -> Sink:
    return (Sink if own else PostfixSink)(folder)


def main() -> None:
    """Measure what the command line asks for."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and so take the daemon along
    parser = argparse.ArgumentParser(description="How fast the daemon sends, against smtp-source.")
    parser.add_argument("--recipients", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--sink", choices=["own", "postfix"], default="own")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--sync-delay", type=float, default=0.0, metavar="MS", help="added to each sync")
    parser.add_argument(
        "--profile", type=Path, metavar="FILE", help="a flame graph (.svg) or speedscope file"
    )
    asked = parser.parse_args()
    own_sink = asked.sink == "own"
    ours = partial(
        mailbound,
        recipients=asked.recipients,
        connections=asked.connections,
        kind=asked.database,
        own_sink=own_sink,
        sync_delay_ms=asked.sync_delay,
        profile=asked.profile,
    )
    theirs = partial(reference, messages=asked.recipients, connections=asked.connections, own_sink=own_sink)
    seen = figures.take_turns({"mailbound": ours, "smtp-source": theirs}, asked.rounds)
    for one, other in zip(*seen.values(), strict=True):
        print(json.dumps({"mailbound": _rounded(one), "smtp-source": _rounded(other)}))
    rates = figures.rounded(statistics.median(_rates(*seen.values())))
    cpu = figures.ratios(*([each.cpu_ms for each in sent] for sent in seen.values()))
    medians = {"rate_to_smtp_source": rates, "cpu_to_smtp_source": figures.rounded(statistics.median(cpu))}
    print(json.dumps(medians))


def _rounded(sent: Sent) -> dict[str, float]:
    return {name: figures.rounded(value) for name, value in asdict(sent).items()}


if __name__ == "__main__":
    main()
