"""`python -m scheduler`: one scheduler in a process of its own."""

import mesh.engine  # noqa: F401  first: it chooses gRPC's engine
from mesh.process import run
from scheduler.serve import serve
from scheduler.settings import SchedulerSettings

if __name__ == "__main__":
    run("scheduler", SchedulerSettings.from_command_line(), serve)
