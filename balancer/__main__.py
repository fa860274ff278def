"""`python -m balancer`."""

import uvloop

import mesh.engine  # noqa: F401  first: it chooses gRPC's engine
from balancer.serve import serve
from balancer.settings import BalancerSettings
from mesh import process

if __name__ == "__main__":
    uvloop.install()  # here, for a process's main chooses the loop
    process.run("balancer", BalancerSettings.from_command_line(), serve)
