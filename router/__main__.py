"""`python -m router`."""

from mesh.process import run
from router.serve import serve
from router.settings import RouterSettings

if __name__ == "__main__":
    run("router", RouterSettings.from_command_line(), serve)
