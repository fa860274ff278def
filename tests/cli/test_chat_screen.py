"""The terminal's view, with keys from a pipe and a screen that shows nothing."""

import asyncio
from collections.abc import Iterator

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from cli.chat_screen import Screen, block, formatted, run
from cli.talk import Line, Talk
from tidings_client import ConnectionState, Status


class Recorded:
    """Stands in for a conversation: keeps what the screen asks of it."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.edits: list[str] = []
        self.typed = 0
        self.stopped = 0

    async def run(self) -> None:
        await asyncio.Event().wait()

    def send(self, text: str) -> None:
        self.sent.append(text)

    async def edit_last(self, text: str) -> None:
        self.edits.append(text)

    def keep_typing(self) -> None:
        self.typed += 1

    def stop_typing(self) -> None:
        self.stopped += 1


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    """A keyboard."""
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        yield pipe


async def press(keys: PipeInput, text: str) -> tuple[Recorded, Talk]:
    """Type into a fresh screen until it ends."""
    recorded, talk = Recorded(), Talk("alice", "bob", "d" + "a" * 26)
    keys.send_text(text)
    async with asyncio.timeout(10):
        await run(recorded, Screen(talk))  # type: ignore[arg-type]
    return recorded, talk


async def test_lines_are_sent_and_quit_ends(keys: PipeInput) -> None:
    recorded, _ = await press(keys, "hello\r  \rbye\r/quit\r")
    assert recorded.sent == ["hello", "bye"]
    assert recorded.typed > 0
    assert recorded.stopped > 0


@pytest.mark.parametrize("end", ["\x04", "\x03"])
async def test_control_d_and_control_c_end_quietly(keys: PipeInput, end: str) -> None:
    recorded, _ = await press(keys, end)
    assert recorded.sent == []


async def test_commands_change_the_last_message_and_are_not_sent(keys: PipeInput) -> None:
    recorded, _ = await press(keys, "/edit better\r/delete\r/what\r/quit\r")
    assert recorded.edits == ["better", ""]
    assert recorded.sent == []
    assert recorded.typed == 0


async def test_live_lines_stand_above_the_input_and_the_state_below(keys: PipeInput) -> None:
    talk = Talk("alice", "bob", "d" + "a" * 26)
    talk.state = ConnectionState.CAUGHT_UP
    talk.live = [Line("alice", "hello", "12:00:00", "k1", Status.SENT)]
    screen = Screen(talk)
    shown = "".join(part[1] for part in screen._prompt())
    assert shown == "12:00:00 alice: hello  ✓\nalice> "
    screen.tell("that can't be done")
    talk.on_typing("bob", True)
    screen.notice("bob is typing")
    below = "".join(part[1] for part in screen._toolbar())
    assert "bob is typing" in below
    assert "that can't be done" in below
    screen.change(talk.live[0])
    talk.live[0].status = Status.READ
    screen.change(talk.live[0])
    await screen.close()
    assert talk.live == []


def test_ticks_have_their_colours() -> None:
    def tick(status: Status, error: str = "") -> tuple[str, str]:
        last = formatted(Line("alice", "x", "12:00", "k", status, error), "alice")[-1]
        return last[0], last[1].strip()

    assert tick(Status.DELIVERED) == ("class:tick", "✓✓")
    assert tick(Status.READ) == ("class:read", "✓✓")
    assert tick(Status.FAILED, "NOT_A_MEMBER") == ("class:failed", "✗ NOT_A_MEMBER")
    assert block([Line("bob", "hi", "12:00")], "alice")[-1] == ("", "\n")
