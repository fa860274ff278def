"""`python -m tagsvc`."""

import mesh.engine  # noqa: F401  first: it chooses gRPC's engine
from mesh.process import run
from tagsvc.serve import serve
from tagsvc.settings import TagsvcSettings

if __name__ == "__main__":
    run("tagsvc", TagsvcSettings.from_command_line(), serve)
