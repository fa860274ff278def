"""`python -m balancer`."""

import mesh.engine  # noqa: F401  first: it chooses gRPC's engine
from balancer.serve import serve
from balancer.settings import BalancerSettings
from mesh import process

if __name__ == "__main__":
    process.run("balancer", BalancerSettings.from_command_line(), serve)
