"""Protections, each of which can be taken away, to see that the run fails without it: nothing is protected by what nobody needs.

Members of the fleet are then run by `without.py`, which changes a service before it starts; or it changes the clients, which run
here; or the database is told something that nobody should tell it. The product has no switch for this.
"""

from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from tests.faults import without
from tests.system.fleet_fixture import Fleet


@dataclass(frozen=True, slots=True)
class Protection:
    """What is taken away, which fault shows it, from which services or whether from clients, and what the database is told."""

    what: str
    shown_by: str
    services: tuple[str, ...] = ()
    sql: tuple[str, ...] = ()
    clients: bool = False


PROTECTIONS = {
    "fences": Protection("writes under an older fence are refused", "freeze router", ("store",)),
    "leases": Protection("what an owner let lapse is given to another", "kill -9 router", ("store",)),
    "idempotence": Protection(
        "a client_msg_id is stored once",
        "kill -9 router",
        ("store",),
        ("ALTER TABLE messages DROP CONSTRAINT uq_messages_conversation_id",),
    ),
    "resync": Protection("sessions are synced again after a link was lost", "resets edge - router", ("edge",)),
    "barrier": Protection("a session is synced once every router knows of it", "slow edge - router", ("edge",)),
    "last-known": Protection(
        "the last known topology is kept while etcd is away", "etcd: quorum lost", ("edge", "router", "balancer")
    ),
    "redispatch": Protection("what a router stored and did not tell is looked for", "kill -9 router", ("router",)),
    "flush": Protection(
        "a commit is on the disk before it is answered",
        "postgres: immediate restart",
        sql=("ALTER SYSTEM SET synchronous_commit = off", "ALTER SYSTEM SET wal_writer_delay = '10s'", "SELECT pg_reload_conf()"),
    ),
    "resend": Protection("a client sends again what was not answered", "all sockets dropped", clients=True),
    "gaps": Protection("a client shows entries in order, once, and asks for what is missing", "kill -9 router", clients=True),
}
Prepare = Callable[[Fleet], None]


def removing(name: str | None) -> Prepare:
    """Prepares a fleet: without this protection, or, without a name, as it is."""

    def prepare(fleet: Fleet) -> None:
        if name is not None and PROTECTIONS[name].clients:
            without.REMOVALS[name]()
        for service in PROTECTIONS[name].services if name is not None else ():
            for one in fleet.of(service):
                one.wrapper = ("-m", "tests.faults.without", str(name))

    return prepare


def tell_database(name: str | None, database: str) -> None:
    """Tell the database what the removal of a protection says, once the stores have made their tables."""
    if name is not None:
        with psycopg.connect(database, autocommit=True) as connection:
            for statement in PROTECTIONS[name].sql:
                connection.execute(statement.encode())
