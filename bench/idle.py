"""`tidings bench idle`: thousands of authenticated sessions on one edge that say nothing but that they are there.

Measured: what each costs the edge and its router in memory, when garbage is collected and before; what all of them cost in CPU; how
fast they came. Plain, and with TLS that the edge itself serves. Some connect before the first reading, so that what is made once
isn't counted. Beside it: a bare aiohttp WebSocket server with as many connections of the same clients, measured alike.
"""

import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.certificates import Certificates, make_certificates
from bench.collected import collect, environment
from bench.fan_out import bare_server
from bench.figures import Figures
from bench.mesh import Target, fleet, one_process
from bench.remote import RemoteGenerator, generator
from bench.resources import Usage, measure

PLAIN_KB, TLS_KB, ROUTER_BYTES = 20.0, 45.0, 200.0
MOST_SESSIONS = 18_000  # what one process may have open, of 20,000 files
WARM = 500  # more sessions connect before the first reading; fewer where fewer are measured
ENOUGH = 5_000  # sessions: with fewer, targets of memory would judge noise
_PYTHON = ("edge", "router", "balancer", "mesh")  # processes that hold something for each session, and collect when told


@dataclass(frozen=True, slots=True)
class IdleOptions:
    """What to measure.

    Attributes:
        sessions: how many.
        seconds: of idling; a round of heartbeats takes 30.
        tls: whether to measure once more with TLS.
        mode: process or fleet.
    """

    sessions: int = 15_000
    seconds: float = 30.0
    tls: bool = True
    mode: str = "fleet"
    baselines: bool = True

    def __post_init__(self) -> None:
        """Refuse what can't be measured, in words."""
        if not 1 <= self.sessions <= MOST_SESSIONS:
            raise ValueError(f"1 to {MOST_SESSIONS:,} sessions can be measured")
        if self.seconds <= 0:
            raise ValueError("seconds must be above 0")
        if self.tls and self.mode == "process":
            raise ValueError("`tidings up` in one process serves no TLS to clients: measure a fleet, or without TLS")


def run(options: IdleOptions) -> Figures:
    """Measure.

    Raises:
        GeneratorFailedError, TimeoutError, OSError: the mesh did not serve.
    """
    settings = {"mode": options.mode, "sessions": options.sessions, "seconds": options.seconds, "tls": options.tls}
    figures = Figures("idle", settings)
    with tempfile.TemporaryDirectory(prefix="tidings-idle-") as folder:
        for certificates in [Certificates(), make_certificates(Path(folder))][: 1 + options.tls]:
            _Run(figures, options, certificates).measure()
    return figures


class _Run:
    """Sessions of one kind, plain or with TLS."""

    def __init__(self, figures: Figures, options: IdleOptions, certificates: Certificates) -> None:
        self._figures = figures
        self._options = options
        self._certificates = certificates
        self._kind = "TLS" if certificates.authority else "plain"
        self._warm = min(options.sessions, WARM)
        self._memory = f"{'edge' if options.mode == 'fleet' else 'mesh'}, {self._kind}: memory a session"
        self._fill = f"{self._kind}: connected"

    def measure(self) -> None:
        """The mesh, then the bare server."""
        with self._mesh() as target, generator("bench.idlers") as clients:
            self._idle(target, clients)
        if self._options.baselines:
            self._bare()

    @contextmanager
    def _mesh(self) -> Iterator[Target]:
        given = environment()
        if self._certificates.authority:
            given |= {
                "TIDINGS_EDGE_TLS_CERTIFICATE": self._certificates.certificate,
                "TIDINGS_EDGE_TLS_KEY": self._certificates.key,
            }
        with one_process(environment=given) if self._options.mode == "process" else fleet(environment=given) as target:
            yield target

    def _idle(self, target: Target, clients: RemoteGenerator) -> None:
        prefix, count = f"bench-{secrets.token_hex(4)}", self._options.sessions
        tokens = {name: target.token(name) for name in (f"{prefix}-{n}" for n in range(self._warm + count))}
        names, pids = list(tokens), {**target.pids, "clients": clients.pid}
        said = {"url": target.url, "authority": self._certificates.authority}
        clients.do("connect", tokens={name: tokens[name] for name in names[: self._warm]}, **said)
        before = self._collected(target.pids)
        filled = clients.do("connect", tokens={name: tokens[name] for name in names[self._warm :]}, **said)
        self._figures.add(self._fill, count / filled["seconds"], "sessions/s", note=f"{count:,} users never seen before")
        self._rest(clients, pids)
        left = measure(target.pids)
        after = self._collected(target.pids)
        self._note_memory(before, after, left)

    def _rest(self, clients: RemoteGenerator, pids: Mapping[str, int]) -> None:
        """Let them idle; what that takes."""
        seconds, before, started = self._options.seconds, measure(dict(pids)), time.monotonic()
        found = clients.do("rest", seconds=seconds)
        took, span = time.monotonic() - started, f"{self._kind}, idle"
        self._figures.spend(span, before, measure(dict(pids)), int((self._warm + self._options.sessions) * took), took)
        costs = self._figures.costs[span]
        shares = {name: cost.cpu_share for name, cost in costs.items() if name != "clients" and cost.cpu_share >= 0.001}
        each = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
        self._figures.add(f"{self._kind}: CPU while idle, servers", sum(shares.values()) * 100, "% of a core", note=each)
        self._figures.faults[f"{self._kind}: connections closed"] = found["closed"]
        self._figures.drove(max(found["cpu_share"], costs["clients"].cpu_share), found["lateness"]["p99"])

    def _note_memory(self, before: Mapping[str, Usage], after: Mapping[str, Usage], left: Mapping[str, Usage]) -> None:
        process = "edge" if self._options.mode == "fleet" else "mesh"
        enough = self._options.sessions >= ENOUGH
        target = TLS_KB if self._certificates.authority else PLAIN_KB
        kept, all_of_it = (self._each(before[process], one[process]) / 1e3 for one in (after, left))
        promised = target if enough and process == "edge" else None
        self._figures.add(self._memory, kept, "KB", promised, note=f"before garbage was collected {all_of_it:.1f}")
        if "router" in after:
            each = self._each(before["router"], after["router"])
            limit = ROUTER_BYTES if enough else None
            self._figures.add(f"router, {self._kind}: memory a session", max(0.0, each), "bytes", limit, note="and its user")

    def _each(self, before: Usage, after: Usage) -> float:
        """Bytes a session that came between."""
        return (after.memory_mb - before.memory_mb) * 2**20 / self._options.sessions

    def _bare(self) -> None:
        files, count = self._certificates, self._options.sessions
        with (
            bare_server(files.certificate, files.key, environment()) as (process, port),
            generator("bench.idlers") as clients,
        ):
            said = {"url": f"{'wss' if files.key else 'ws'}://127.0.0.1:{port}/", "authority": files.authority}
            clients.do("connect_bare", count=self._warm, **said)
            before = self._collected({"mesh": process.pid})["mesh"]
            seconds = clients.do("connect_bare", count=count, **said)["seconds"]
            kept = self._each(before, self._collected({"mesh": process.pid})["mesh"]) / 1e3
        self._figures.beside(f"bare aiohttp WebSocket, {self._kind}", kept, "KB", self._memory, "no session, no user")
        rate, how = count / seconds, "the same clients connecting to a bare server, no tickets and no Hello"
        self._figures.beside(f"bare handshakes, {self._kind}", rate, "sessions/s", self._fill, how)
        self._figures.could_drive(rate / self._figures.value(self._fill), how)

    def _collected(self, pids: Mapping[str, int]) -> dict[str, Usage]:
        """Usage once the processes' garbage is collected."""
        collect(pid for name, pid in pids.items() if name in _PYTHON)
        return measure(dict(pids))
