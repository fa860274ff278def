"""How a command fails: one sentence that says what is wrong, one that says what to do, and an exit status.

Status 0 is success, 1 a failure at work, 2 a wrong command line, 130 Ctrl-C; `tidings doctor` has more of its own.
"""

USAGE = 2
INTERRUPTED = 130


class CommandError(Exception):
    """What stopped a command.

    Attributes:
        what: the cause, for people.
        hint: the next step; empty when there is none to give.
        status: the exit status.
    """

    def __init__(self, what: str, hint: str = "", *, status: int = 1) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.status = status

    def __str__(self) -> str:
        return f"{self.what}: {self.hint}" if self.hint else self.what
