"""The metrics of tagsvc. Every name begins with `tagsvc_`, so that services sharing a process don't share an instrument."""

from mesh.telemetry import Telemetry


class Meters:
    """The instruments, made once per instance."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._records = telemetry.counter("tagsvc_records_total", "Changes logged by this instance")
        self._record_bytes = telemetry.counter("tagsvc_record_bytes_total", "Bytes of these changes", "By")
        self._memberships = telemetry.counter("tagsvc_memberships_total", "Memberships applied, as callers counted them")
        self._checkpoints = telemetry.counter("tagsvc_checkpoints_total", "Checkpoints made, by outcome")
        self._retries = telemetry.counter("tagsvc_store_retries_total", "Calls to a store made again")
        self._evaluation = telemetry.histogram("tagsvc_evaluation_seconds", "Evaluating one expression")
        self._checkpoint = telemetry.histogram("tagsvc_checkpoint_seconds", "Making one checkpoint")

    def appended(self, records: int, size: int) -> None:
        """Records logged, and their bytes."""
        self._records.add(records)
        self._record_bytes.add(size)

    def applied(self, memberships: int) -> None:
        """Memberships of a chunk that is durable."""
        self._memberships.add(memberships)

    def checkpointed(self, outcome: str, seconds: float) -> None:
        """A checkpoint "kept", "older" than another's, or "failed"."""
        self._checkpoints.add(1, {"outcome": outcome})
        self._checkpoint.observe(seconds)

    def evaluated(self, seconds: float) -> None:
        """An expression evaluated."""
        self._evaluation.observe(seconds)

    def retried(self) -> None:
        """A call to a store failed and is made again."""
        self._retries.add(1)
