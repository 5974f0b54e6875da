"""Every Python block of the docs and the README runs, page by page, as one script in an empty folder.

A block after `<!-- no-run: reason -->` is left out.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"(?P<skip><!-- no-run: .+ -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str, language: str) -> list[str]:
    """Each block of the language, padded with empty lines so that a traceback names the page's own line."""
    return [
        "\n" * text[: match.start("code")].count("\n") + match["code"]
        for match in BLOCK.finditer(text)
        if match["language"] == language and not match["skip"]
    ]


def script(text: str) -> str:
    """The page's Python blocks, each on its own lines."""
    lines: list[str] = []
    for block in blocks(text, "python"):
        lines += block.splitlines()[len(lines) :]
    return "\n".join(lines) + "\n"


def pages(language: str) -> list[Path]:
    return [page for page in PAGES if blocks(page.read_text(encoding="utf-8"), language)]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", pages("python"), ids=name)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    program = tmp_path / f"{page.stem}.py"
    program.write_text(script(page.read_text(encoding="utf-8")), encoding="utf-8")
    done = subprocess.run([sys.executable, program.name], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", pages("toml"), ids=name)
def test_the_toml_of_a_page_is_toml(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8"), "toml"):
        assert tomllib.loads(block)


@pytest.mark.parametrize("page", pages("json"), ids=name)
def test_the_json_of_a_page_is_json(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8"), "json"):
        assert json.loads(block)


def test_a_block_is_skipped_only_with_a_reason_and_keeps_its_line_numbers() -> None:
    text = (
        "# title\n```python\na = 1\n```\n<!-- no-run: needs a GPU -->\n```python\nraise SystemExit(1)\n```\n```python\nb = a\n```\n"
    )
    assert script(text).splitlines() == ["", "", "a = 1", "", "", "", "", "", "", "b = a"]


def test_the_readme_and_getting_started_show_the_same_program() -> None:
    first, second = (
        blocks((ROOT / page).read_text(encoding="utf-8"), "python") for page in ("README.md", "docs/getting-started.md")
    )
    assert [block.lstrip("\n") for block in first] == [block.lstrip("\n") for block in second]
