"""`python -m tests.faults.without PROTECTION SERVICE …`: as `python -m SERVICE …`, with one of its protections taken away.

Each function below changes the service's modules before it starts. See `protections.py` for what they are.
"""

import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any


def fences() -> None:
    """Whoever says that they own a notification is believed, whatever its state."""
    from store import notification_progress

    def owns(step: Any, rows: Any) -> bool:
        return rows.get(step.notification_id) is not None

    notification_progress._owns = owns


def leases() -> None:
    """What an owner let lapse stays its own."""
    from store import notification_claims
    from store.notification_rows import COLUMNS
    from store.sql import Statement

    nothing = f"SELECT {COLUMNS} FROM notifications WHERE false AND :now > :most {{for_update}} {{skip_locked}}"
    notification_claims._LAPSED = Statement(nothing)


def idempotence() -> None:
    """A send that was stored before is stored again."""
    from store import postgres_message_log

    found = "AND stored.sender_ordinal = drafts.sender"
    for name in ("_APPEND", "_APPEND_APART"):
        routine = getattr(postgres_message_log, name)
        setattr(postgres_message_log, name, replace(routine, work=routine.work.replace(found, f"AND false {found}")))


def resync() -> None:
    """After a link was lost sessions are not synced."""
    from edge.switchboard import Switchboard

    Switchboard._resync_all = lambda self: None  # type: ignore[method-assign]


def barrier() -> None:
    """A session is synced before the routers know that it is there."""
    from edge.switchboard import Switchboard

    def announce(self: Switchboard, session: Any) -> None:
        if self.directory.online(session):
            for link in self._opening.values():
                link.queue.online(session.user_ordinal, opened=True)
                link.wake()
        session.on_announced(self._clock())

    Switchboard.announce = announce  # type: ignore[method-assign]


def last_known() -> None:
    """While etcd is away nobody is known."""
    from etcd3aio.kv import prefix_range_end

    from mesh import etcd_registry

    async def list_once(self: Any, service: str) -> Any:
        prefix = etcd_registry._key(service)
        try:
            found = await self._kv.get(prefix, prefix_range_end(prefix), timeout=1.0)
        except etcd_registry._FAULTS:
            return {}
        instances = [one for pair in found.kvs if (one := etcd_registry._parse(pair.key, pair.value)) is not None]
        return {instance.instance_id: instance for instance in instances}

    etcd_registry.EtcdRegistry._list = list_once  # type: ignore[method-assign]
    etcd_registry.RELIST_SECONDS = 1.0
    etcd_registry.trusted = lambda known, update: True  # type: ignore[attr-defined]


def redispatch() -> None:
    """Nobody looks for what a router stored and did not tell."""
    from router.redispatch import Redispatch

    async def nothing(self: Any) -> None:
        return

    Redispatch._search_once = nothing  # type: ignore[method-assign]


def resend() -> None:
    """What was not answered when the connection ended, or for long, is not sent again."""
    from tidings_client.outbox import Outbox

    Outbox._requeue = lambda self, records: None  # type: ignore[method-assign]


def gaps() -> None:
    """What comes is shown as it comes."""
    from tidings_client.conversation_log import ConversationLog

    def on_entry(self: ConversationLog, entry: Any) -> Any:
        self.position = max(self.position or 0, entry.seq)
        return [entry]

    ConversationLog.on_entry = on_entry  # type: ignore[method-assign]


REMOVALS: dict[str, Callable[[], None]] = {
    "fences": fences,
    "leases": leases,
    "idempotence": idempotence,
    "resync": resync,
    "barrier": barrier,
    "last-known": last_known,
    "redispatch": redispatch,
    "resend": resend,
    "gaps": gaps,
}

if __name__ == "__main__":
    _, protection, service, *flags = sys.argv
    sys.argv = [service, *flags]
    REMOVALS[protection]()
    runpy.run_module(service, run_name="__main__", alter_sys=True)
