"""docs/errors.md is written from the contract, so it is current and complete."""

from scripts.errors_page import KINDS, PAGE, PROTO, kind, main, page, rows
from tidings.common.v1.error_pb2 import ErrorCode


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(rows(PROTO.read_text())), "run python scripts/errors_page.py"
    assert main(["--check"]) == 0


def test_every_error_is_on_it_once_with_what_to_do() -> None:
    found = rows(PROTO.read_text())
    assert {row.code: f"ERROR_CODE_{row.reason}" for row in found} == {
        code: ErrorCode.Name(code) for code in ErrorCode.values() if code
    }
    text = PAGE.read_text()
    for row in found:
        assert text.count(f"| {row.code} | `{row.reason}` |") == 1
        assert row.text.endswith((".", ")"))


def test_every_code_is_of_one_kind() -> None:
    for row in rows(PROTO.read_text()):
        assert sum(row.code in codes for codes in KINDS) == 1
        assert kind(row.code) in PAGE.read_text()


def test_an_edited_comment_makes_another_page() -> None:
    proto = PROTO.read_text()
    assert page(rows(proto.replace("Ask a member to add you", "Ask someone"))) != page(rows(proto))
