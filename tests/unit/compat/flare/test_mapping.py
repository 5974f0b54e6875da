from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

from hansa.compat.flare.apis import dxo
from hansa.compat.flare.mapping import mapped


def test_nvflare_is_our_package_while_an_app_runs_and_nobody_s_afterwards(tmp_path: Path) -> None:
    (tmp_path / "my_trainer.py").write_text("from nvflare.apis.dxo import DXO\nimport nvflare.apis.shareable as s\nmake = s\n")
    before = list(sys.path), list(sys.meta_path)
    with mapped(tmp_path):
        own = importlib.import_module("my_trainer")
        assert importlib.import_module("nvflare.apis.dxo") is dxo
        assert own.DXO is dxo.DXO
        assert dxo.__spec__ is not None
        assert dxo.__spec__.name == "hansa.compat.flare.apis.dxo"
        with pytest.raises(ModuleNotFoundError, match=r"nvflare\.private"):
            importlib.import_module("nvflare.private")
    assert (list(sys.path), list(sys.meta_path)) == before
    assert not [name for name in sys.modules if name.startswith(("nvflare", "my_trainer"))]
    assert importlib.util.find_spec("my_trainer") is None


def test_two_apps_with_modules_of_one_name_each_get_their_own(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "constants.py").write_text(f"NAME = {name!r}\n")
        with mapped(tmp_path / name):
            assert name == importlib.import_module("constants").NAME
