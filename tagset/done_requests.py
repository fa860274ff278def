"""The requests carried out lately, so that a repetition is recognised. A fixed number: the newest push out the oldest."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from tagset.persistent import PersistentMap

CAPACITY = 10_000  # callers repeat within minutes; these last for 100 s at 100 changes a second, and usually for hours


class Done(NamedTuple):
    """What is known of a request carried out.

    Attributes:
        digest: of the whole request.
        version: of the snapshot it made.
    """

    digest: bytes
    version: int


class DoneRequests(Mapping[str, Done]):
    """By request id, the oldest first. It never changes: `put` gives another, which shares nearly all.

    Args:
        requests: these, in this order; a repeated id counts where it comes last. Past `CAPACITY` the first are left out.
    """

    __slots__ = ("_begin", "_by_id", "_end", "_ids")

    def __init__(self, requests: Iterable[tuple[str, Done]] = ()) -> None:
        ordered: dict[str, Done] = {}
        for request_id, done in requests:
            ordered.pop(request_id, None)
            ordered[request_id] = done
        newest = list(islice(ordered.items(), max(0, len(ordered) - CAPACITY), None))
        self._by_id = PersistentMap((key, (number, done)) for number, (key, done) in enumerate(newest))
        self._ids = PersistentMap((number, key) for number, (key, _) in enumerate(newest))
        self._begin, self._end = 0, len(newest)  # every number in use is between, but not every number between is in use

    def __getitem__(self, request_id: str) -> Done:
        return self._by_id[request_id][1]

    def __iter__(self) -> Iterator[str]:
        return (self._ids[number] for number in sorted(self._ids))

    def __len__(self) -> int:
        return len(self._by_id)

    def put(self, request_id: str, done: Done) -> "DoneRequests":
        """With one more, as the newest; when full, without the oldest."""
        other = object.__new__(DoneRequests)
        other._by_id = self._by_id.put([(request_id, (self._end, done))])
        other._ids = self._ids.put([(self._end, request_id)])
        if request_id in self._by_id:
            other._ids = other._ids.without(self._by_id[request_id][0])
        other._begin, other._end = self._begin, self._end + 1
        if len(other) > CAPACITY:
            other._drop_oldest()
        return other

    def _drop_oldest(self) -> None:
        while self._begin not in self._ids:
            self._begin += 1
        self._by_id = self._by_id.without(self._ids[self._begin])
        self._ids = self._ids.without(self._begin)
