"""A generator's side of the pipes: commands as JSON lines on stdin, a JSON line on stdout for each, until stdin ends."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from bench.wire import HandshakeRefusedError

LINE_BYTES = 1 << 26  # the tokens of all users come in one line
Answer = dict[str, Any]


async def obey(commands: dict[str, Callable[..., Awaitable[Answer]]]) -> None:
    """Carry out commands, {"do": name, argument: value}, by their names; one that fails is answered {"error": text}."""
    lines = asyncio.StreamReader(limit=LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        arguments: dict[str, Any] = json.loads(line)
        try:
            answer = await commands[arguments.pop("do")](**arguments)
        except (OSError, ValueError, TimeoutError, KeyError, HandshakeRefusedError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
