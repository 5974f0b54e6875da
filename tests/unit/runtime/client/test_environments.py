"""A label of a job leads to an interpreter of the site's; what is not there is named before anything runs."""

from __future__ import annotations

import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from hansa.runtime.client.environments import LackError, interpreter, require


def make_environment(folder: Path, *, with_ours: bool = True) -> Path:
    """A virtual environment; with ours, it finds what this interpreter has installed."""
    venv.create(folder, with_pip=False)
    if with_ours:
        [packages] = folder.glob("lib/python*/site-packages")
        (packages / "ours.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return folder


def test_without_a_label_it_is_the_agents_own_interpreter(tmp_path: Path) -> None:
    assert interpreter({}, "", tmp_path) == Path(sys.executable)
    require(Path(sys.executable), ("numpy",))


@pytest.mark.parametrize(
    ("named", "words"),
    [(None, "no environment 'torch'"), ("docker://registry/torch", "images cannot be run"), ("gone", "images cannot be run")],
)
def test_a_label_that_leads_nowhere_is_refused_by_name(tmp_path: Path, named: str | None, words: str) -> None:
    with pytest.raises(LackError, match=words) as caught:
        interpreter({} if named is None else {"torch": named}, "torch", tmp_path)
    assert caught.value.code == "environment"


def test_an_environment_needs_the_sites_hansa_and_what_the_job_requires(tmp_path: Path) -> None:
    good = interpreter({"torch": "good"}, "torch", make_environment(tmp_path / "good").parent)
    require(good, ("numpy",))
    with pytest.raises(LackError, match="no no-such-thing installed"):
        require(good, ("numpy", "no-such-thing"))
    bare = interpreter({"bare": "bare"}, "bare", make_environment(tmp_path / "bare", with_ours=False).parent)
    with pytest.raises(LackError, match="has hansa not at all"):
        require(bare, ())


@pytest.mark.parametrize("name", ["no-such-thing", "numpy>=1", "../x"])
def test_what_is_not_installed_and_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(LackError) as caught:
        require(Path(sys.executable), ("numpy", name))
    assert caught.value.code == "requires"
