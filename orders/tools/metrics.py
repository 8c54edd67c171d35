"""What a worker does, in the text format that Prometheus reads."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from ..application.store import Account
from ..application.worker import Tallied, Tally

COUNTERS: Mapping[Tallied, tuple[str, str]] = {
    "done": ("delivered", "Deliveries that succeeded."),
    "failed": ("failed", "Deliveries that failed, to be made again."),
    "dead": ("dead", "Deliveries that were given up."),
    "retried": ("retried", "Failed deliveries that were made again."),
    "taken over": ("taken_over", "Deliveries taken over from processes that died."),
}


def exposition(tally: Tally, pending: Iterable[Account], time: datetime) -> Iterator[str]:
    """Yield the lines: what one worker has done, and what is pending for all of them.

    Args:
        tally: the worker's.
        pending: the deliveries that are pending.
        time: the present, in UTC, from which their age is counted.
    """
    ages: dict[str, list[float]] = {name: [] for _, name in tally}
    for account in pending:
        age = max(0.0, round((time - account.since).total_seconds(), 3))
        ages.setdefault(account.delivery.subscriber, []).append(age)
    names = sorted(ages)
    for what, (word, text) in COUNTERS.items():
        values = {name: tally[what, name] for name in names}
        yield from _metric(f"orders_worker_{word}_total", "counter", text, values)
    numbers = {name: len(ages[name]) for name in names}
    yield from _metric("orders_pending", "gauge", "Deliveries that are pending.", numbers)
    oldest = {name: max(ages[name], default=0.0) for name in names}
    text = "Age in seconds of the oldest pending delivery."
    yield from _metric("orders_oldest_pending_seconds", "gauge", text, oldest)


def _metric(name: str, kind: str, text: str, values: Mapping[str, float]) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for subscriber, value in values.items():
        escaped = subscriber.replace("\\", "\\\\").replace('"', '\\"')
        yield f'{name}{{subscriber="{escaped}"}} {value}'
