"""Flags over the environment over defaults, and errors that say what is allowed."""

from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from mesh.credentials import CredentialSettings
from mesh.settings import ServiceSettings, environment


class ExampleSettings(ServiceSettings):
    """A service's settings."""

    model_config = environment("example")

    port: int = Field(8081, ge=0, le=65535, description="where to listen")
    origins: list[str] = Field([], description="who may ask")


class SecretiveSettings(CredentialSettings):
    """A service with secrets."""

    model_config = environment("secretive")


def test_defaults_the_environment_and_flags_in_rising_order(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ExampleSettings.from_command_line([]).port == 8081
    monkeypatch.setenv("TIDINGS_EXAMPLE_PORT", "7001")
    monkeypatch.setenv("TIDINGS_EXAMPLE_ZONE", "north")
    monkeypatch.setenv("TIDINGS_OTHER_HOST", "10.0.0.1")
    from_environment = ExampleSettings.from_command_line([])
    assert (from_environment.port, from_environment.zone, from_environment.host) == (7001, "north", "127.0.0.1")
    from_flags = ExampleSettings.from_command_line(["--port", "7002", "--drain-seconds", "3"])
    assert (from_flags.port, from_flags.zone, from_flags.drain_seconds) == (7002, "north", 3.0)


def test_a_list_comes_as_json_or_as_repeated_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_EXAMPLE_ORIGINS", '["https://a", "https://b"]')
    assert ExampleSettings.from_command_line([]).origins == ["https://a", "https://b"]
    assert ExampleSettings.from_command_line(["--origins", "https://c", "--origins", "https://d"]).origins == [
        "https://c",
        "https://d",
    ]


def test_the_command_line_is_not_read_by_itself() -> None:
    assert ExampleSettings.model_validate({"port": 0}).port == 0


def test_help_lists_every_setting_with_its_description(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        ExampleSettings.from_command_line(["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert "python -m example" in text
    assert "--drain-seconds" in text
    assert "failure domain" in text


@pytest.mark.parametrize("arguments", [["--port", "99999"], ["--port", "many"], ["--no-such-setting", "1"]])
def test_a_wrong_setting_ends_the_program_by_its_name(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        ExampleSettings.from_command_line(arguments)
    assert left.value.code
    assert arguments[0].removeprefix("--") in capsys.readouterr().err + str(left.value)


def test_a_wrong_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_SECRETIVE_TICKET_SECRET", "hunter2")
    with pytest.raises(SystemExit) as left:
        SecretiveSettings.from_command_line([])
    assert "ticket_secret is shorter than 32 bytes" in str(left.value)
    assert "hunter2" not in str(left.value)


def test_the_advertised_host_is_the_host_unless_told_otherwise() -> None:
    assert ExampleSettings.model_validate({"host": "10.0.0.1"}).advertised_host == "10.0.0.1"
    assert ExampleSettings.model_validate({"host": "0.0.0.0", "advertise": "edge.example"}).advertised_host == "edge.example"


@pytest.mark.parametrize("given", [["mesh_ca"], ["mesh_certificate", "mesh_key"], ["mesh_ca", "mesh_key"]])
def test_the_files_of_mutual_tls_go_together(given: list[str], tmp_path: Path) -> None:
    file = tmp_path / "file.pem"
    file.touch()
    with pytest.raises(ValidationError, match="go together"):
        ExampleSettings.model_validate(dict.fromkeys(given, str(file)))
    whole = dict.fromkeys(("mesh_ca", "mesh_certificate", "mesh_key"), str(file))
    assert ExampleSettings.model_validate(whole).mesh_key == str(file)


def test_a_file_of_mutual_tls_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file.pem"
    file.touch()
    flags = ["--mesh-ca", str(file), "--mesh-certificate", str(file), "--mesh-key", str(tmp_path / "none.key")]
    with pytest.raises(SystemExit) as left:
        ExampleSettings.from_command_line(flags)
    assert "mesh_key: there is no file" in str(left.value)


def test_help_says_loudly_that_a_mesh_without_certificates_is_open(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ExampleSettings.from_command_line(["--help"])
    assert "PLAIN TEXT" in capsys.readouterr().out
