"""`python -m router`."""

import mesh.engine  # noqa: F401  first: it chooses gRPC's engine
from mesh.process import run
from router.serve import serve
from router.settings import RouterSettings

if __name__ == "__main__":
    run("router", RouterSettings.from_command_line(), serve)
