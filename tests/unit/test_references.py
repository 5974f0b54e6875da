"""References: `file.py:name` and `package.module:name` lead to an object, or say where they end."""

import sys
from pathlib import Path

import pytest

from hansa.core.job import Job
from hansa.errors import ConfigError, JobReferenceError
from hansa.references import load_reference


def test_a_reference_leads_to_a_file_and_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_job.py").write_text("value = 5\n", encoding="utf-8")
    (tmp_path / "prog.py").write_text("from neighbour_of_job import value\n", encoding="utf-8")
    before = list(sys.path)
    assert load_reference("prog.py:value", base=tmp_path) == 5
    assert sys.path == before


def test_a_reference_leads_to_a_module() -> None:
    assert load_reference("hansa.core.job:Job") is Job


WRONG: list[tuple[str, str]] = [
    ("prog", "not a reference"),
    (":x", "not a reference"),
    ("missing.py:x", "no such file"),
    ("no_such_module_here:x", "no module 'no_such_module_here'"),
    ("hansa.core.job:Jop", "did you mean 'Job'"),
    ("broken.py:x", "importing it failed"),
]


@pytest.mark.parametrize(("reference", "message"), WRONG)
def test_a_reference_that_leads_nowhere_says_where_it_ends(tmp_path: Path, reference: str, message: str) -> None:
    (tmp_path / "broken.py").write_text("import no_such_library_here\n", encoding="utf-8")
    with pytest.raises(JobReferenceError, match=message):
        load_reference(reference, base=tmp_path)


BROKEN: list[tuple[str, str, int]] = [
    ("x = (1,\n", "SyntaxError", 1),
    ("x = 1\nx / 0\n", "ZeroDivisionError: division by zero", 2),
    ("import sys\n\nsys.exit(3)\n", "it ended the program", 3),
    ("import json\njson.loads('{')\n", "JSONDecodeError", 2),
]


@pytest.mark.parametrize(("text", "message", "line"), BROKEN)
def test_what_a_job_file_raises_when_it_is_imported_is_told_with_its_line(
    tmp_path: Path, text: str, message: str, line: int
) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text, encoding="utf-8")
    before = set(sys.modules)
    with pytest.raises(JobReferenceError, match=message) as caught:
        load_reference("broken.py:x", base=tmp_path)
    assert caught.value.path == f"{path}:{line}"
    assert not [name for name in set(sys.modules) - before if "broken" in name]


def test_an_error_of_ours_in_a_job_file_passes_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("from hansa import Job\nJob('a b', len)\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="job name"):
        load_reference("own.py:job", base=tmp_path)


def test_a_file_is_run_once_while_it_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "prog.py"
    path.write_text("a, b = object(), object()\nboth = (a, b)\n", encoding="utf-8")
    assert (load_reference(f"{path}:a"), load_reference("prog.py:b", base=tmp_path)) == load_reference(f"{path}:both")
    path.write_text("both = 7\n", encoding="utf-8")
    assert load_reference(f"{path}:both") == 7
