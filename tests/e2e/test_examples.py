"""Every example runs at its small size, in an empty folder, as a user would start it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NEEDS_DATA = [path for path in EXAMPLES if "HANSA_DATA" in path.read_text(encoding="utf-8")]
PAGE = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
WEIGHTS = "<float32[784,10],float32[10]>"
DATA = "<float32[?,784],int32[?,1]>*"
TUTORIAL = [  # the types of TensorFlow Federated's tutorial, as it prints them
    "{float32}@CLIENTS",
    "({float32}@CLIENTS -> float32@SERVER) 69.53333",
    "(float32 -> float32)",
    "({float32}@CLIENTS -> {float32}@CLIENTS) [np.float32(1.5), np.float32(3.5), np.float32(2.5)]",
    f"( -> {WEIGHTS})",
    DATA,
    WEIGHTS,
    f"(<tf_dataset={DATA},server_weights={WEIGHTS}> -> {WEIGHTS})",
    f"({WEIGHTS} -> {WEIGHTS})",
    f"( -> {WEIGHTS}@SERVER)",
    f"(<server_weights={WEIGHTS}@SERVER,federated_dataset={{{DATA}}}@CLIENTS> -> {WEIGHTS}@SERVER)",
]
SIGNATURES = {"tff_tutorial": TUTORIAL, "tff_tutorial_torch": TUTORIAL}  # lines that an example prints
FIGURE = re.compile(r"\"(\w+\.png)\"")


def stem(path: Path) -> str:
    return path.stem


def run(path: Path, folder: Path, *arguments: str) -> str:
    quiet = {name: value for name, value in os.environ.items() if name != "HANSA_DATA"}
    command = [sys.executable, "-W", "error", str(path), "--small", *arguments]
    done = subprocess.run(command, cwd=folder, env=quiet, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=stem)
def test_an_example_runs_without_a_download_prints_and_writes_its_figures(path: Path, tmp_path: Path) -> None:
    said = run(path, tmp_path)
    assert said
    assert [line for line in SIGNATURES.get(path.stem, ()) if f"{line}\n" not in said] == []
    expected = set(FIGURE.findall(path.read_text(encoding="utf-8")))
    assert {figure.name for figure in tmp_path.iterdir()} == expected
    assert all(figure.read_bytes().startswith(b"\x89PNG") for figure in tmp_path.iterdir())


@pytest.mark.parametrize("path", NEEDS_DATA, ids=stem)
def test_an_example_runs_on_the_real_pictures_of_a_folder(path: Path, tmp_path: Path) -> None:
    if (data := os.environ.get("HANSA_DATA")) is None:
        pytest.skip("HANSA_DATA does not name the folder of the larger data sets")
    assert run(path, tmp_path, "--data", data)


@pytest.mark.parametrize("path", NEEDS_DATA, ids=stem)
def test_without_its_data_an_example_says_where_people_get_it(path: Path, tmp_path: Path) -> None:
    quiet = {name: value for name, value in os.environ.items() if name != "HANSA_DATA"}
    done = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, env=quiet, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode != 0
    assert "https://" in done.stderr


@pytest.mark.parametrize("path", EXAMPLES, ids=stem)
def test_an_example_and_its_figures_are_on_the_page(path: Path) -> None:
    assert f"examples/{path.name}" in PAGE
    for name in FIGURE.findall(path.read_text(encoding="utf-8")):
        assert f"figures/{name}" in PAGE
        figure = ROOT / "docs" / "figures" / name
        assert figure.stat().st_size < 120_000
