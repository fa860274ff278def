"""`tidings tag …` against a real mesh."""

from pathlib import Path

from tests.cli.mesh_under_test import MeshUnderTest


def test_tags_from_a_file_and_whom_they_mean(mesh: MeshUnderTest, tmp_path: Path) -> None:
    people = tmp_path / "people.csv"
    people.write_text("user_id,tags\nann,gold;early\nbob,gold\ncarl,early;left\n")
    done = mesh.json("tag", "import", str(people))
    assert (done["rows"], done["memberships"]) == (3, 5)
    assert mesh.json("tag", "import", str(people))["memberships"] == 5  # again is harmless
    counted = mesh.json("tag", "count", "gold + (early & !left)")
    assert counted["count"] == 2
    assert [part["count"] for part in counted["tree"]["operands"]] == [2, 1]
    assert mesh.run("tag", "expand", "gold + early - left").stdout.split() == ["ann", "bob"]
    assert mesh.run("tag", "of", "ann").stdout.split() == ["early", "gold"]
    assert mesh.json("tag", "explain", "carl", "gold + (early & !left)")["included"] is False
    assert "ann is in, because" in mesh.run("tag", "explain", "ann", "gold").stdout


def test_one_user_aliases_and_combinations(mesh: MeshUnderTest) -> None:
    mesh.run("tag", "create", "silver", "--description", "Second best", "--attribute", "colour=grey")
    mesh.run("tag", "add", "dora", "silver", "fresh")
    mesh.run("tag", "alias", "second", "silver")
    assert mesh.run("tag", "combine", "either", "@second + fresh").stdout.startswith("either = ")
    assert mesh.run("tag", "expand", "either").stdout.split() == ["dora"]
    mesh.run("tag", "remove", "dora", "fresh")
    assert mesh.json("tag", "count", "fresh")["count"] == 0
    listed = mesh.json_lines("tag", "list")
    silver = next(line for line in listed if line.get("tag") == "silver")
    assert (silver["description"], silver["attributes"], silver["member_count"]) == ("Second best", {"colour": "grey"}, 1)
    assert {"alias": "second", "target": "silver"} in listed
    refused = mesh.run("tag", "delete", "silver", ok=False)
    assert refused.returncode == 1
    assert "second" in refused.stderr
    for name in ("either", "@second", "silver"):
        mesh.run("tag", "delete", name)
    left = {name for line in mesh.json_lines("tag", "list") for name in line.values() if isinstance(name, str)}
    assert not left & {"either", "second", "silver"}


def test_faults_are_one_line_with_their_place(mesh: MeshUnderTest) -> None:
    for words, said in (
        (("tag", "count", "gold + + early"), "column 8"),
        (("tag", "count", "no_such_tag"), "'no_such_tag'"),
        (("tag", "create", "nice", "--attribute", "colour"), "KEY=VALUE"),
        (("tag", "create", 'a"b'), "name"),
    ):
        done = mesh.run(*words, ok=False)
        assert done.returncode != 0
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_service_that_is_not_there(mesh: MeshUnderTest) -> None:
    done = mesh.run("tag", "list", "--tags", "127.0.0.1:1", ok=False)
    assert done.returncode == 1
    assert done.stderr == "nothing answers at 127.0.0.1:1: start a mesh with `tidings up`, or say where it is\n"


def test_what_is_not_text_is_refused(mesh: MeshUnderTest) -> None:
    done = mesh.run("tag", "count", "vip\udcff", ok=False)
    assert done.returncode == 2
    assert "UTF-8" in done.stderr
