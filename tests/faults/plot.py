"""The reconnects of a rolling restart as a picture: how many of the crowd came back in each second."""

import json
from pathlib import Path

import matplotlib.pyplot as plt

from tests.faults.surroundings import CROWD, MOST_RECONNECTS, RECONNECTS

PICTURE = Path("docs/figures/reconnects.svg")


def draw(counts: Path = RECONNECTS, picture: Path = PICTURE) -> None:
    """Draw what the last rolling restart left; nothing when there was none."""
    if not counts.exists():
        return
    seconds = {int(second): count for second, count in json.loads(counts.read_text()).items()}
    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    axes.bar(list(seconds), list(seconds.values()), width=1.0)
    axes.axhline(MOST_RECONNECTS, color="grey", linewidth=1)
    axes.set(xlabel="seconds since the first process was stopped", ylabel="reconnects in each second")
    axes.set_title(f"Every process restarted, one after the other; {CROWD} clients who stay connected (grey: what is allowed)")
    figure.savefig(picture, metadata={"Date": None})
    plt.close(figure)
