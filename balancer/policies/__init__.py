"""Policies by name. A policy is a file with a pure function of the same name: nodes in, node out."""

from balancer.policies.consistent_hash import consistent_hash
from balancer.policies.node import Policy
from balancer.policies.two_choices import two_choices

POLICIES: dict[str, Policy] = {"two_choices": two_choices, "consistent_hash": consistent_hash}


def named(name: str) -> Policy:
    """The policy of that name.

    Raises:
        ValueError: there is none; says which there are.
    """
    if name not in POLICIES:
        raise ValueError(f"no policy {name!r}: use one of {', '.join(sorted(POLICIES))}")
    return POLICIES[name]
