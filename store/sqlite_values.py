"""A statement whose tables are values in its text, for SQLite: they take half to a quarter of the time that JSON takes.

Tables are filled up with NULLs to the next power of two, and these are left out again: so a statement has few texts, and the driver
keeps them prepared. All of a statement's have the same size, for SQLite judges by it: beside a small one it goes through all of a
larger one again and again instead of making an index of it. It must not know what the statement does.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

MOST = 512  # rows of a table; with more, what the driver keeps would be large
_PLACE = re.compile(r"\{(\w+)\}|(?<![:\w]):([a-z_]\w*)")


class SqliteValues:
    """The texts of one statement.

    Args:
        template: SQL with `:name` for values and `{name}` for tables.
        tables: name -> names of its columns. The first is never None.
    """

    def __init__(self, template: str, tables: Mapping[str, Sequence[str]]) -> None:
        self._template = template
        self._tables = tables
        self._names = list(dict.fromkeys(name for _, name in _PLACE.findall(template) if name))
        self._texts: dict[int, str] = {}

    def fill(self, parameters: Mapping[str, Any]) -> tuple[str, list[object]] | None:
        """The text for tables as large as the largest of these, and its parameters, by number; None past `MOST` rows."""
        most = max((len(parameters[name]) for name in self._tables), default=0)
        if most > MOST:
            return None
        size = 1 << max(0, most - 1).bit_length()
        values: list[object] = [parameters[name] for name in self._names]
        for name, columns in self._tables.items():
            rows = parameters[name]
            values += [value for row in rows for value in row]
            values += [None] * ((size - len(rows)) * len(columns))
        if size not in self._texts:
            self._texts[size] = self._spell(size)
        return self._texts[size], values

    def _spell(self, size: int) -> str:
        numbers = count(1)
        places = {name: f"?{next(numbers)}" for name in self._names}
        for name, columns in self._tables.items():
            places[name] = _table(name, columns, size, numbers)
        return _PLACE.sub(lambda match: places[match[1] or match[2]], self._template)


def _table(name: str, columns: Sequence[str], size: int, numbers: Iterator[int]) -> str:
    names = ", ".join(f"column{number} AS {column}" for number, column in enumerate(columns, 1))
    rows = ", ".join(f"({', '.join(f'?{next(numbers)}' for _ in columns)})" for _ in range(size))
    return f"(SELECT {names} FROM (VALUES {rows}) WHERE column1 IS NOT NULL) AS {name}"  # noqa: S608  (names of ours, no values)
