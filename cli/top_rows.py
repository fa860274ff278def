"""What `tidings top` shows of each node: made of two readings of its metrics, and of what a balancer says of an edge. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tidings.balancer.v1.balancer_pb2 import Edge
from tidings.common.v1.instance_pb2 import Instance

_CONNECTIONS = {"edge": ("concurrent_websocket_connections",)}
_LINKS = {
    "router": ("router_links",),
    "balancer": ("balancer_edges",),
    "tagsvc": ("tagsvc_watchers",),
    "scheduler": ("scheduler_watches",),
}
_MESSAGES = {
    "edge": ('messages_total{direction="in"}', 'messages_total{direction="out"}'),
    "router": ('router_messages_total{direction="in"}', 'router_messages_total{direction="out"}'),
    "store": ("store_entries_total",),
}
_NOTIFICATIONS = {
    "edge": ('notifications_total{direction="out"}',),
    "router": ("router_notification_recipients_total",),
    "scheduler": ("scheduler_handed_over_total",),
}
_QUEUES = {
    "router": ("router_append_queue", "router_receipt_queue", "router_link_queue"),
    "tagsvc": ("tagsvc_write_queue",),
    "scheduler": ("scheduler_held", "scheduler_held_apart"),
    "balancer": ("balancer_assignments_under_way",),
}


@dataclass(frozen=True, slots=True)
class Reading:
    """A node's metrics at a time.

    Attributes:
        seconds: the time, by a clock that doesn't go back.
        samples: by name, and by name and each single label; samples of the same add up.
    """

    seconds: float
    samples: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, seconds: float) -> "Reading":
        """From Prometheus' text format.

        Raises:
            ValueError: it isn't that.
        """
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                _add(found, sample.name, sample.value)
                for name, value in sample.labels.items():
                    _add(found, f'{sample.name}{{{name}="{value}"}}', sample.value)
        return cls(seconds, found)

    def sum(self, names: Iterable[str]) -> float | None:
        """Of what there is of these; None when there is none."""
        found = [self.samples[name] for name in names if name in self.samples]
        return sum(found) if found else None


def _add(found: dict[str, float], name: str, value: float) -> None:
    found[name] = found.get(name, 0.0) + value


@dataclass(frozen=True, slots=True)
class Row:
    """A node. What it does not tell, or what takes two readings and has only one, is None.

    Attributes:
        state: up, draining, or away when it does not answer.
        connections: clients' connections.
        messages_per_second, notifications_per_second: both directions together.
        queued: work that waits.
        lag_ms: how late its event loop runs.
        links: edges linked to a router or a balancer; callers that watch a tagsvc or scheduler.
        cpu: share of one core.
        rss_mb: memory in MiB.
        dead_letters: what is put aside, as a store counts them in the database that all share.
    """

    instance_id: str
    service: str
    name: str
    zone: str
    state: str
    connections: int | None = None
    messages_per_second: float | None = None
    notifications_per_second: float | None = None
    queued: int | None = None
    lag_ms: float | None = None
    links: int | None = None
    cpu: float | None = None
    rss_mb: float | None = None
    dead_letters: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return asdict(self)


def row(instance: Instance, name: str, now: Reading | None, before: Reading | None, edge: Edge | None) -> Row:
    """A node's row.

    Args:
        instance: who.
        name: what people call it.
        now: its latest reading; None when it does not answer.
        before: the one before; None when there was none.
        edge: what a balancer says of it.
    """
    service = instance.service
    draining = instance.draining or (edge is not None and edge.instance.draining)
    identity = (instance.instance_id, service, name, instance.zone)
    if now is None:
        return Row(*identity, "away", connections=edge.connections if edge else None)
    return Row(
        *identity,
        "draining" if draining else "up",
        connections=edge.connections if edge else _whole(now.sum(_CONNECTIONS.get(service, ()))),
        messages_per_second=_rate(now, before, _MESSAGES.get(service, ())),
        notifications_per_second=_rate(now, before, _NOTIFICATIONS.get(service, ())),
        queued=_whole(now.sum(_QUEUES.get(service, ()))),
        lag_ms=_lag(now, edge),
        links=_whole(now.sum(_LINKS.get(service, ()))),
        cpu=_rate(now, before, ("process_cpu_seconds_total",)),
        rss_mb=_scaled(now.sum(("process_resident_memory_bytes",)), 1 / (1 << 20)),
        dead_letters=_whole(now.sum(("store_dead_letters",))) if service == "store" else None,
    )


def total(rows: Sequence[Row]) -> dict[str, float]:
    """What the fleet does: the edges' sums, which count each message once in and once for each session out."""
    edges = [one for one in rows if one.service == "edge"]
    return {
        "connections": sum(one.connections or 0 for one in edges),
        "messages_per_second": sum(one.messages_per_second or 0.0 for one in edges),
        "notifications_per_second": sum(one.notifications_per_second or 0.0 for one in edges),
        "dead_letters": max((one.dead_letters or 0 for one in rows), default=0),
        "away": sum(one.state == "away" for one in rows),
    }


def _rate(now: Reading, before: Reading | None, names: Iterable[str]) -> float | None:
    """Per second; counters that began anew count from 0."""
    if before is None or now.seconds <= before.seconds:
        return None
    latest, earlier = now.sum(names), before.sum(names) or 0.0
    if latest is None:
        return None
    return (latest - earlier if latest >= earlier else latest) / (now.seconds - before.seconds)


def _lag(now: Reading, edge: Edge | None) -> float | None:
    if edge is not None and edge.loop_lag_us:
        return edge.loop_lag_us / 1000
    return _scaled(now.sum(("loop_lag_seconds",)), 1000.0)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _scaled(value: float | None, by: float) -> float | None:
    return None if value is None else value * by
