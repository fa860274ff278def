"""`python -m edge`: one edge, until SIGTERM."""

import resource

import mesh.engine  # noqa: F401  first: it chooses gRPC's engine
from edge.serve import serve
from edge.settings import EdgeSettings
from mesh import process


def main() -> None:
    """Run an edge."""
    _allow_many_sockets()
    process.run("edge", EdgeSettings.from_command_line(), serve)


def _allow_many_sockets() -> None:
    """Raise the limit of open files to what the system allows: each client is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main()
