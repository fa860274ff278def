"""The growth bench finds the line that is there, and its parts measure what they say, briefly."""

import json
from pathlib import Path

import matplotlib
import pytest

from bench import growth, growth_members, growth_plots, growth_tags
from bench.growth_line import fit


def test_a_line_is_found_as_it_is() -> None:
    line = fit([(1.0, 15.0), (10.0, 60.0), (1_000.0, 5_010.0)])
    assert line.base == pytest.approx(10.0)
    assert line.slope == pytest.approx(5.0)
    assert line.deviation == pytest.approx(0.0, abs=1e-9)
    assert line.value(100.0) == pytest.approx(510.0)


def test_a_point_beside_the_line_is_named() -> None:
    line = fit([(0.0, 100.0), (10.0, 200.0), (20.0, 450.0), (30.0, 400.0)])
    assert line.at == 20.0
    assert 0.2 < line.deviation < 0.4


def test_the_largest_does_not_decide_alone() -> None:
    """As least squares would have it: there the small sizes, ten times off, would not count."""
    line = fit([(1.0, 10.0), (2.0, 20.0), (3.0, 30.0), (1_000.0, 20_000.0)])
    assert line.value(2.0) == pytest.approx(20.0, rel=0.4)


@pytest.mark.parametrize("points", [[(1.0, 2.0)], [(1.0, 2.0), (1.0, 3.0)], [(1.0, 2.0), (2.0, 0.0)]])
def test_what_is_no_line_is_refused(points: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        fit(points)


def test_an_unknown_part_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="members, tags, edges, routers"):
        growth.run("height")


def test_a_short_run_of_tags_with_its_picture(tmp_path: Path) -> None:
    figures = growth_tags.run(growth_tags.TagGrowthOptions((1_000, 10_000)))
    assert not figures.broken
    assert figures.series["clients"] == [1_000, 10_000]
    assert all(value > 0 for values in figures.series.values() for value in values)
    figures.save(tmp_path / "growth-tags.json")
    matplotlib.use("svg")
    growth_plots.draw(tmp_path, [json.loads((tmp_path / "growth-tags.json").read_text())])
    assert "<svg" in (tmp_path / "growth-tags.svg").read_text()


@pytest.mark.postgresql
@pytest.mark.etcd
def test_a_short_run_of_members() -> None:
    figures = growth_members.run(growth_members.MembersOptions((2, 10), rate=20.0, seconds=1.0))
    assert not figures.broken
    assert figures.series["members"] == [2, 10]
    named = {one.name: one.value for one in figures.figures}
    assert named["2 members: CPU a message"] > 0
    assert named["10 members: until delivered, p50"] > 0
