"""Lines as they are typed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hansa.admin.shell.line import Line
from hansa.admin.shell.session import require_prompt
from hansa.compat.flare.admin import lines, looking
from hansa.errors import InputError, MissingExtraError, StorageError


@pytest.mark.parametrize(
    ("text", "words", "into", "mode"),
    [
        ("", (), None, "w"),
        ("# a comment", (), None, "w"),
        ("deploy 'my app' client", ("deploy", "my app", "client"), None, "w"),
        ('grep server "a \\" b"c\\ d log.txt # why', ("grep", "server", 'a " bc d', "log.txt"), None, "w"),
        ("echo '' a#b", ("echo", "", "a#b"), None, "w"),
        ("ls server>files.txt", ("ls", "server"), "files.txt", "w"),
        ("grep server '>' log.txt >> found", ("grep", "server", ">", "log.txt"), "found", "a"),
    ],
)
def test_a_line_is_its_words_and_the_file_that_its_answer_goes_to(text: str, words: tuple[str, ...], into: str, mode: str) -> None:
    assert Line.of(text) == Line(words, None if into is None else Path(into), "a" if mode == "a" else "w")


@pytest.mark.parametrize(
    "text", ["cat 'server", "ls server >", "> file", "ls server > a > b", "ls server >>> a", "ls server > a b"]
)
def test_a_line_that_is_not_whole_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="syntax error"):
        Line.of(text)


def test_one_arrow_writes_anew_and_two_add(tmp_path: Path) -> None:
    file = tmp_path / "kept"
    Line.of(f"ls server > {file}").keep("old\n")
    Line.of(f"ls server > {file}").keep("new\n")
    Line.of(f"ls server >> {file}").keep("more\n")
    assert file.read_text() == "new\nmore\n"
    with pytest.raises(StorageError, match="none"):
        Line.of(f"ls server > {tmp_path}/none/kept").keep("lost\n")


def test_without_the_library_a_terminal_is_told_which_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prompt_toolkit", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hansa\[shell\]'"):
        require_prompt()


def test_lines_are_found_by_pattern_as_grep_does() -> None:
    said = ["one", "Two", "three two"]
    assert looking.matching(said, "two", "") == ["three two"]
    assert looking.matching(said, "two", "in") == ["2:Two", "3:three two"]
    assert looking.matching(said, "two", "ivn") == ["1:one"]
    assert looking.matching(said, "o", "c") == ["3"]
    with pytest.raises(InputError, match="not a pattern"):
        looking.matching(said, "(", "")


def test_every_command_is_explained_and_none_has_two_meanings() -> None:
    listed = "\n".join(lines.explained().lines)
    assert all(name in listed for name in lines.COMMANDS)
    assert not set(lines.COMMANDS) & set(lines.ELSEWHERE)
    assert all("has no meaning here" in lines.explained(name).lines[0] for name in lines.ELSEWHERE)
    with pytest.raises(InputError, match="no such command"):
        lines.explained("rm")
