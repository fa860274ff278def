"""The whole mesh as one process on one loop, to be measured: `python -m bench.together --database sqlite:///… --loop uvloop`.

Prints the balancer's URL as one line of JSON once it serves, and serves until SIGTERM. Secrets come from the environment.
"""

import argparse
import asyncio
import json
import os
from contextlib import AsyncExitStack
from typing import Any

import uvloop

import balancer.serve
import edge.serve
import router.serve
import store.serve
from balancer.settings import BalancerSettings
from bench.mesh import UNLIMITED
from edge.settings import EdgeSettings
from mesh.process import stop_signal
from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry, configure_logging, settle_memory
from router.settings import RouterSettings
from store.settings import StoreSettings


async def main(database: str) -> None:
    """Serve until SIGTERM."""
    stop, registry, telemetry = stop_signal(), MemoryRegistry(), Telemetry("tidings-bench")
    secrets: dict[str, Any] = {name: os.environ[f"TIDINGS_BENCH_{name.upper()}"] for name in ("token_secret", "ticket_secret")}
    door: dict[str, Any] = {"connects_per_second": UNLIMITED, "connect_burst": UNLIMITED, "connections_per_ip": 0}
    pace: dict[str, Any] = {"frames_per_second": UNLIMITED, "frames_burst": UNLIMITED}
    port: dict[str, Any] = {"port": 0}
    async with AsyncExitStack() as stack:
        stack.callback(telemetry.close)
        await stack.enter_async_context(store.serve.serve(StoreSettings(**port, database=database), registry, telemetry))
        await stack.enter_async_context(router.serve.serve(RouterSettings(**port), registry, telemetry))
        entrance = BalancerSettings(**port, grpc_port=0, **door, **secrets)
        instance = await stack.enter_async_context(balancer.serve.serve(entrance, registry, telemetry))
        await stack.enter_async_context(edge.serve.serve(EdgeSettings(**port, **pace, **secrets), registry, telemetry))
        settle_memory()
        print(json.dumps({"url": instance.public_url}), flush=True)
        await stop.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--database", required=True)
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop")
    arguments = parser.parse_args()
    configure_logging("bench", "warning", as_json=False)
    (uvloop.run if arguments.loop == "uvloop" else asyncio.run)(main(arguments.database))
