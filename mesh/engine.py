"""Which of gRPC's two engines moves the bytes. Import it before anything that imports `grpc`, which reads this once, as it loads.

The default engine hands every read from its own poller to a pool of threads and on to the completion queue; the older one reads in
the thread that waits on the queue. That halves the thread switches of a message, and it is what a message costs here
(docs/adr/0011-the-engine-of-grpc.md). Whoever sets GRPC_EXPERIMENTS decides for themselves.
"""

import os
import sys

CHOICE = "-event_engine_client,-event_engine_listener"
LATE = "grpc" in sys.modules
"""Whether gRPC was there before us, and uses what it likes."""

os.environ.setdefault("GRPC_EXPERIMENTS", CHOICE)
