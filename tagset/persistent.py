"""A mapping that never changes: another version of it shares nearly all of its memory."""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_SHARDS = 256  # a change copies this many references, and one shard: for 100,000 keys about 400 entries


class PersistentMap(Mapping[K, V]):
    """Keys spread over many small dictionaries; a change copies only those it touches. In no particular order."""

    __slots__ = ("_length", "_shards")

    def __init__(self, items: Iterable[tuple[K, V]] = ()) -> None:
        self._shards: tuple[dict[K, V], ...] = ({},) * _SHARDS
        self._length = 0
        changed = self.put(items)
        self._shards, self._length = changed._shards, changed._length

    def __getitem__(self, key: K) -> V:
        return self._shards[hash(key) % _SHARDS][key]

    def __contains__(self, key: object) -> bool:
        return key in self._shards[hash(key) % _SHARDS]

    def __iter__(self) -> Iterator[K]:
        for shard in self._shards:
            yield from shard

    def __len__(self) -> int:
        return self._length

    def __eq__(self, other: object) -> bool:
        return self._shards == other._shards if isinstance(other, PersistentMap) else super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # as other mappings

    def __repr__(self) -> str:
        return f"PersistentMap({dict(self)!r})"

    def put(self, items: Iterable[tuple[K, V]]) -> "PersistentMap[K, V]":
        """With these values at these keys."""
        shards: dict[int, dict[K, V]] = {}
        for key, value in items:
            number = hash(key) % _SHARDS
            if number not in shards:
                shards[number] = self._shards[number].copy()
            shards[number][key] = value
        return self._with(shards)

    def without(self, key: K) -> "PersistentMap[K, V]":
        """Without a key; itself when it isn't there."""
        if key not in self:
            return self
        number = hash(key) % _SHARDS
        return self._with({number: {k: v for k, v in self._shards[number].items() if k != key}})

    def _with(self, changed: Mapping[int, dict[K, V]]) -> "PersistentMap[K, V]":
        shards = list(self._shards)
        other: PersistentMap[K, V] = object.__new__(type(self))
        other._length = self._length
        for number, shard in changed.items():
            other._length += len(shard) - len(shards[number])
            shards[number] = shard
        other._shards = tuple(shards)
        return other
