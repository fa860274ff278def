"""How tags, combinations and aliases may be named, and how a name is written in an expression."""

import re

NAME_LENGTH = 128  # characters, as the contract says
USER_ID_LENGTH = 128  # characters, as for every user id
BARE = re.compile(r"[A-Za-z0-9_.]+")  # names of these stand without quotes


def fault(name: str) -> tuple[int, str] | None:
    """What is wrong with a name: the index of the first character at fault, and a phrase for people; None when it is valid."""
    if not name:
        return 0, "a name has at least one character"
    if len(name) > NAME_LENGTH:
        return 0, f"a name has at most {NAME_LENGTH} characters, not {len(name):,}"
    for index, character in enumerate(name):
        if character in '"\\' or not character.isprintable():
            return index, f"a name can't hold {character!r}"
    if name[0] == " ":
        return 0, "a name can't begin with a space"
    return (len(name) - 1, "a name can't end with a space") if name[-1] == " " else None


def valid(name: str) -> bool:
    """Whether a tag, combination or alias may have this name."""
    return fault(name) is None


def written(name: str) -> str:
    """The name as an expression has it: in double quotes only where it must be."""
    return name if BARE.fullmatch(name) else f'"{name}"'
