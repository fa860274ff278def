"""Where in a business's request a fault is that another service, or a check of a part, found. Pure."""

from collections.abc import Iterator
from contextlib import contextmanager

from mesh.errors import TidingsError
from tidings.common.v1 import error_pb2

_OF_EXPRESSIONS = {
    error_pb2.ERROR_CODE_INVALID_EXPRESSION,
    error_pb2.ERROR_CODE_EXPRESSION_TOO_LARGE,
    error_pb2.ERROR_CODE_UNKNOWN_TAG,
    error_pb2.ERROR_CODE_UNKNOWN_USER,
    error_pb2.ERROR_CODE_NOTIFICATION_NOT_FOUND,
    error_pb2.ERROR_CODE_REPORT_GONE,
    error_pb2.ERROR_CODE_INVALID_FIELD,
}


def at(error: TidingsError, field: str) -> TidingsError:
    """The same error at another path, also where its message begins with the path."""
    message = error.message
    if error.field and message.startswith(f"{error.field}: "):
        message = field + message.removeprefix(error.field)
    return TidingsError(error.code, message, retry_after=error.retry_after, field=field)


@contextmanager
def expression_at(field: str) -> Iterator[None]:
    """What is wrong with an expression that is evaluated inside is wrong at this field."""
    try:
        yield
    except TidingsError as error:
        raise (at(error, field) if error.code in _OF_EXPRESSIONS else error) from error
