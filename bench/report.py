"""Reports read again from JSON: one file, or the folder that `tidings bench all` wrote."""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench.figures import SHAPE, Figures

SUMMARY = "summary.json"  # in a folder of reports; not a report itself
_FIGURES = TypeAdapter(Figures)


class NotAReportError(ValueError):
    """A file that is no bench's report of this shape; the text says which, and why."""


def read_report(path: Path) -> Figures:
    """A bench's report; what only its own bench knows of is left out.

    Raises:
        NotAReportError: it isn't one.
        OSError: it can't be read.
    """
    data = _parse(path)
    if data.get("shape") != SHAPE:
        raise NotAReportError(f"{path} is not a report of this `tidings bench`: measure again with --json")
    try:
        return _FIGURES.validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise NotAReportError(f"{path} is not a report: {where}: {first['msg']}") from error


def read_folder(folder: Path) -> dict[str, Figures]:
    """The reports in a folder, by their files' names without the ending.

    Raises:
        NotAReportError: one isn't one, or there is none.
    """
    files = sorted(file for file in folder.glob("*.json") if "bench" in _parse(file))  # others may lie beside them
    if not files:
        raise NotAReportError(f"{folder} holds no reports: `tidings bench all --folder {folder}` writes some")
    return {file.stem: read_report(file) for file in files}


def _parse(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except ValueError as error:  # not text, or not JSON
        raise NotAReportError(f"{path} is not JSON") from error
    if not isinstance(data, dict):
        raise NotAReportError(f"{path} is not a report: no object")
    return data
