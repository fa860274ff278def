"""`python -m store`: one store in a process of its own."""

import mesh.engine  # noqa: F401  first: it chooses gRPC's engine
from mesh import process
from store.serve import serve
from store.settings import StoreSettings

if __name__ == "__main__":
    process.run("store", StoreSettings.from_command_line(), serve)
