"""The fleet under every fault of docs/guarantees.md, one after the other: `make faults`, or `python -m tests.faults --help`."""
