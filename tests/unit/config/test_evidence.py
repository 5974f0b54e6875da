"""A run is not resumed on other settings or other data than it began with."""

from pathlib import Path
from typing import Any

import pytest

from hansa.config.evidence import check_same, code_of, fingerprint
from hansa.errors import ConfigError, DataError, HansaError

WAS: dict[str, Any] = {
    "partition": {"kind": "dirichlet", "alpha": 0.3},
    "metrics": {"names": ["loss"]},
    "files": {"rows.csv": {"bytes": 3, "sha256": "a"}},
    "code": {"own.py": "b"},
}


def test_a_files_fingerprint_is_its_size_and_digest(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert fingerprint(tmp_path / "rows.csv") == {"bytes": 3, "sha256": known}


def test_a_folders_fingerprint_is_of_names_and_sizes(tmp_path: Path) -> None:
    folder = tmp_path / "sites"
    (folder / "north").mkdir(parents=True)
    (folder / "north" / "rows.csv").write_text("abc")
    first = fingerprint(folder)
    assert (first["files"], first["bytes"]) == (1, 3)
    (folder / "north" / "rows.csv").write_text("abcd")
    assert fingerprint(folder)["sha256"] != first["sha256"]


def test_python_files_that_the_tables_name_are_found(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("")
    settings = {"data": {"source": "own.py:rows"}, "filters": [{"kind": "own.py:mine"}, {"kind": "gone.py:x"}], "name": "x"}
    assert list(code_of(settings, tmp_path)) == ["own.py"]


def test_the_same_settings_pass_whatever_kind_of_sequence_they_are() -> None:
    assert check_same(WAS, {**WAS, "metrics": {"names": ("loss",)}}, run="r") == []


@pytest.mark.parametrize(
    ("now", "kind", "says"),
    [
        (
            {"partition": {"kind": "dirichlet", "alpha": 0.5}},
            ConfigError,
            r"path \$\.partition\.alpha \(it was 0\.3 .* now it is 0\.5",
        ),
        ({"partition": {"kind": "dirichlet"}}, ConfigError, r"now it is not set"),
        ({"seed": 3}, ConfigError, r"path \$\.seed \(it was not set"),
        ({"files": {"rows.csv": {"bytes": 3, "sha256": "z"}}}, DataError, r"path rows\.csv sha256; expected a; got z"),
        ({"partition": {}, "files": {}}, ConfigError, r"partition\.alpha"),
    ],
)
def test_what_differs_is_named(now: dict[str, Any], kind: type[HansaError], says: str) -> None:
    with pytest.raises(kind, match=says):
        check_same(WAS, {**WAS, **now}, run="r")


def test_code_that_differs_is_noted_and_a_run_without_evidence_is_not_held_to_it() -> None:
    assert check_same(WAS, {**WAS, "code": {"own.py": "c"}}, run="r") == ["own.py has changed since this run began"]
    bare = {name: WAS[name] for name in ("partition", "metrics")}
    assert check_same(bare, WAS, run="r") == []
