"""Expressions at the contract: tagset's faults become named errors with the field that holds the expression."""

from collections.abc import Iterator
from contextlib import contextmanager

from mesh import errors
from tagset.errors import CycleError, ExpressionError, TooLargeError, UnknownNameError
from tagset.expression import Expression
from tagset.parser import parse


def read(text: str, field: str = "expression") -> Expression:
    """Read an expression.

    Raises:
        TidingsError: INVALID_EXPRESSION, EXPRESSION_TOO_LARGE.
    """
    with named(field):
        return parse(text)


@contextmanager
def named(field: str = "expression") -> Iterator[None]:
    """Name what tagset finds wrong."""
    try:
        yield
    except ExpressionError as error:
        raise errors.invalid_expression(error.text, error.column, field) from error
    except TooLargeError as error:
        raise errors.expression_too_large(error.text, field) from error
    except UnknownNameError as error:
        raise _unknown(error, field) from error
    except CycleError as error:
        raise errors.combination_cycle(error.path, field) from error


def _unknown(error: UnknownNameError, field: str) -> errors.TidingsError:
    if error.kind == "user":
        return errors.unknown_user(error.name, column=error.column, field=field)
    if error.kind == "notification":
        return errors.notification_not_found(error.name)
    kind = f"{error.kind}, as {error.within} names it," if error.within else error.kind
    return errors.unknown_tag(error.name, kind, column=error.column, field=field)
