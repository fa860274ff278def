"""`tidings certs …`: a folder of certificates is made once, shown, and renewed."""

import json
import stat
from pathlib import Path

import pytest

from cli.__main__ import main
from mesh.mutual_tls import MutualTls
from mesh.permissions import ROLES


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `tidings certs …`."""
    with pytest.raises(SystemExit) as ended:
        main(["certs", *words])
    captured = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, captured.out, captured.err


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A folder just made."""
    made = tmp_path / "certs"
    assert run(capsys, "init", str(made))[0] == 0
    return made


def test_init_makes_a_usable_certificate_for_every_role_and_hides_the_keys(folder: Path) -> None:
    assert all(MutualTls.in_folder(folder, role) for role in ROLES)
    keys = list(folder.glob("*.key"))
    assert len(keys) == len(ROLES) + 1
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.suffix for path in folder.iterdir()} == {".pem", ".key"}, "nothing is left lying about"


def test_init_again_changes_nothing_but_makes_what_is_missing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert run(capsys, "init", str(folder)) == (0, "every role has its certificate\n", "")
    for name in ("edge.pem", "edge.key"):
        (folder / name).unlink()
    status, out, _ = run(capsys, "init", str(folder))
    assert (status, out) == (0, "made certificates for edge, good for 365 days\n")
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"edge.pem", "edge.key"}
    assert MutualTls.in_folder(folder, "edge")


def test_half_a_pair_is_never_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, said in (("store.key", "store.key is missing: bring it back"), ("ca.key", "can't read")):
        held = (folder / name).read_bytes()
        (folder / name).unlink()
        status, _, err = run(capsys, "init", str(folder))
        assert status == 1
        assert said in err
        assert not (folder / name).exists()
        (folder / name).write_bytes(held)


def test_renew_makes_new_pairs_by_the_same_authority(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert run(capsys, "renew", str(folder), "edge", "store", "--days", "5")[0] == 0
    changed = {path.name for path in folder.iterdir() if path.read_bytes() != before[path.name]}
    assert changed == {"edge.pem", "edge.key", "store.pem", "store.key"}
    assert run(capsys, "renew", str(folder))[0] == 0
    kept = {path.name for path in folder.iterdir() if path.read_bytes() == before[path.name]}
    assert kept == {"ca.pem", "ca.key"}
    assert all(MutualTls.in_folder(folder, role) for role in ROLES)
    status, _, err = run(capsys, "renew", str(folder), "janitor")
    assert status == 2
    assert "no role 'janitor'" in err


def test_no_certificate_outlasts_its_authority(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "init", str(tmp_path), "--days", "400", "--authority-days", "40")
    lines = shown(capsys, tmp_path)[1]
    assert len({line["ends"] for line in lines.values()}) == 1


def test_show_lists_roles_ends_and_faults(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = shown(capsys, folder)
    assert (status, set(lines)) == (0, {"authority", *ROLES})
    assert not any(line["fault"] for line in lines.values())
    (folder / "edge.key").unlink()
    (folder / "store.key").chmod(0o640)
    (folder / "router.pem").write_bytes((folder / "tagsvc.pem").read_bytes())
    (folder / "balancer.pem").unlink()
    run(capsys, "renew", str(folder), "operator", "--days", "3")
    status, lines = shown(capsys, folder)
    faults = {role: str(line["fault"]) for role, line in lines.items() if line["fault"]}
    assert (status, set(faults)) == (1, {"edge", "store", "router", "balancer", "operator"})
    for role, said in (
        ("edge", "edge.key"),
        ("store", "others may read"),
        ("router", "don't belong together"),
        ("balancer", "missing"),
        ("operator", "ends soon"),
    ):
        assert said in faults[role]
    assert "until 20" in run(capsys, "show", str(folder))[1]


def shown(capsys: pytest.CaptureFixture[str], folder: Path) -> tuple[int, dict[str, dict[str, object]]]:
    """Status and lines, by role."""
    status, out, _ = run(capsys, "show", str(folder), "--json")
    return status, {line["role"]: line for line in map(json.loads, out.splitlines())}


def test_a_place_where_nothing_can_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    status, _, err = run(capsys, "init", str(tmp_path / "file" / "certs"))
    assert status == 1
    assert "can't make" in err
    assert err.count("\n") == 1
