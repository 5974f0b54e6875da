"""YAML and JSON of strangers: plain values or one clear error with its place."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.errors import ConfigError
from hansa.provision.foreign.files import DEPTH, LIMIT, dotted, read


def written(folder: Path, text: str | bytes, name: str = "project.yml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_plain_yaml_is_read_with_the_place_of_each_value(tmp_path: Path) -> None:
    content = read(written(tmp_path, "a: 1\nb:\n  - {c: yes, d: 2026-01-02}\n  - ~\n  - 0x10\n  - 'x'\n"))
    assert content.value == {"a": 1, "b": [{"c": True, "d": "2026-01-02"}, None, 16, "x"]}  # a date is text
    assert content.places[("b", 0, "d")] == (3, 14)
    assert content.where(("b", 0, "d")) == "project.yml:3 b[0].d"


def test_a_key_with_a_dot_in_it_stands_in_quotes() -> None:
    assert dotted(("users", "a@b.org", "roles", 0)) == "users.'a@b.org'.roles[0]"


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a: [1, 2\nb: 3\n", 2, "expected"),
        ("a: 1\n\tb: 2\n", 2, "cannot start any token"),
        ("a: 1\na: 2\n", 2, "'a' a second time"),
        ("x: 1\na: !!python/object/apply:os.system ['true']\n", 2, "a tag"),
        ("a: !own 3\n", 1, "a tag"),
        ("a: &x [1]\nb: *x\n", 2, "an alias"),
        ("a:\n  <<: {b: 1}\n", 2, "a merge key"),
        ("? [a, b]\n: 1\n", 1, "no text"),
        ("a: 1\n---\nb: 2\n", 2, "a second document"),
        ("a: " + "[" * 40 + "]" * 40, 1, f"more than {DEPTH} levels"),
        ("a: " + "9" * 5_000, 1, "cannot be read"),
    ],
)
def test_what_is_malformed_is_one_error_with_its_line(tmp_path: Path, text: str, line: int, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        read(written(tmp_path, text))
    assert f"line {line}, column " in str(caught.value)


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"a: \xff", "not UTF-8"), (b"a: \x01", "not YAML"), (b"a: " + b"x" * LIMIT, "too long"), (b"[" * 200_000, "levels")],
)
def test_what_is_no_text_or_too_much_is_named_soon(tmp_path: Path, content: bytes, what: str) -> None:
    began = time.process_time()
    with pytest.raises(ConfigError, match=what):
        read(written(tmp_path, content))
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"a": 1,\n}', "line 2, column 1"),
        ('{"a": 1, "a": 2}', "stands twice"),
        ("[" * 100_000, "too deep"),
        ("9" * 5_000, "cannot be read"),
    ],
)
def test_malformed_json_is_one_error(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        read(written(tmp_path, text, "authz_config.json"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read(tmp_path / "project.yml")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.text("ab .:#-é'\"", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc@. ", min_size=1, max_size=5), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(value=PLAIN)
def test_what_yaml_writes_is_read_back(value: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    assert read(written(folder, yaml.safe_dump(value, allow_unicode=True), "any.yml")).value == value


@settings(max_examples=150, deadline=None)
@given(noise=st.binary(max_size=60) | st.text("{}[]:-&*!|>#%@,?\n\t \"'ab1", max_size=60).map(str.encode))
def test_noise_is_read_or_refused_and_nothing_else(noise: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = written(tmp_path_factory.getbasetemp(), noise, "noise.yml")
    with contextlib.suppress(ConfigError):
        assert read(path).path == path
