"""Write docs/errors.md from the comments of proto/tidings/common/v1/error.proto and the statuses in mesh/errors.py.

`python scripts/errors_page.py` writes it; `--check` only says whether it is current.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import grpc

from mesh.errors import TidingsError
from tidings.common.v1.error_pb2 import ErrorCode

ROOT = Path(__file__).resolve().parents[1]
PROTO = ROOT / "proto/tidings/common/v1/error.proto"
PAGE = ROOT / "docs/errors.md"
_VALUE = re.compile(r"((?:  //[^\n]*\n)+)  ERROR_CODE_(\w+) = (\d+);")
_HEAD = """\
# Errors

<!-- Written by scripts/errors_page.py; edit the comments in proto/tidings/common/v1/error.proto instead. -->

Every refusal has a number and a name, the same everywhere:

| where | how it comes |
|---|---|
| WebSocket, long poll | an `Error` frame with `code`, `message`, `field`, `retry_after` and, of a send, its `client_msg_id` |
| WebSocket | a close code from 4400 on; its text is the name. The long poll says the same in `close_code` and `close_reason` |
| HTTP | the status below, and `Error` in JSON; with 401 at the balancer, `UnauthorizedResponse`. `Retry-After` where it helps |
| gRPC | the status below with one `ErrorInfo` (`reason` is the name, `domain` is `tidings`), and `RetryInfo` or `BadRequest` |
| metrics | the name, as the label `outcome` or `reason` |

Where `retry_after` is given, send the same request again after it, with the same ids: it is never carried out twice.

- *error frame*: this request failed; the connection goes on.
- *close code: don't reconnect as before*: it won't help to come back the same way; first change what the text says.
- *close code: reconnect*: nothing is wrong with the client; reconnect with backoff, and resume.

| code | reason | kind | gRPC | HTTP | what it means, and what to do |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """One error; `text` says what it means and what to do."""

    code: int
    reason: str
    text: str


KINDS = {
    range(4000, 4400): "error frame",
    range(4400, 4500): "close code: don't reconnect as before",
    range(4500, 4600): "close code: reconnect",
}


def rows(proto: str) -> list[Row]:
    """The errors a proto file's text defines, without the unset value."""
    found = [(int(number), reason, _unwrap(comment)) for comment, reason, number in _VALUE.findall(proto)]
    return [Row(*one) for one in found if one[0]]


def page(errors: list[Row]) -> str:
    """The whole page in Markdown."""
    return _HEAD + "".join(_line(error) + "\n" for error in errors)


def kind(code: int) -> str:
    """What an error of this number does to a connection.

    Raises:
        StopIteration: the number is in none of the ranges.
    """
    return next(text for codes, text in KINDS.items() if code in codes)


def _line(error: Row) -> str:
    text = error.text.replace("|", "\\|")
    statuses = f"{_grpc_status(error.code)} | {_http_status(error.code)}"
    return f"| {error.code} | `{error.reason}` | {kind(error.code)} | {statuses} | {text} |"


def _grpc_status(code: int) -> str:
    status = TidingsError(_known(code), "").to_status().code
    return "" if status is grpc.StatusCode.UNKNOWN else status.name


def _http_status(code: int) -> str:
    """Codes that only close a WebSocket have none of their own."""
    status = TidingsError(_known(code), "").http_status
    return str(status) if status != 500 or code < 4400 else ""


def _known(code: int) -> ErrorCode.ValueType:
    return ErrorCode.Value(ErrorCode.Name(code))  # type: ignore[arg-type]


def _unwrap(comment: str) -> str:
    return " ".join(line.strip().removeprefix("//").strip() for line in comment.splitlines())


def main(arguments: list[str]) -> int:
    """Write or check; the exit status is 1 when the page is not current."""
    text = page(rows(PROTO.read_text()))
    if arguments == ["--check"]:
        current = PAGE.exists() and PAGE.read_text() == text
        print(f"{PAGE.relative_to(ROOT)} is {'current' if current else 'out of date: run python scripts/errors_page.py'}")
        return 0 if current else 1
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
