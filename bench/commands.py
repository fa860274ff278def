"""A generator's side of the pipes: commands as JSON lines on stdin, a JSON line on stdout for each, until stdin ends."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

LINE_BYTES = 1 << 26  # the tokens of all users come in one line
FAILURES = (OSError, ValueError, TimeoutError)
Answer = dict[str, Any]


async def obey(answer: Callable[[dict[str, Any]], Awaitable[Answer]], failures: tuple[type[Exception], ...] = FAILURES) -> None:
    """Carry out commands, {"do": name, argument: value}, one after the other.

    Args:
        answer: carries one out.
        failures: of a command, which are answered {"error": text}; any other is a fault of the generator, and ends it.
    """
    lines = asyncio.StreamReader(limit=LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        try:
            said = await answer(json.loads(line))
        except failures as error:
            said = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(said), flush=True)
