import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hansa

HEAVY = ("numpy", "torch", "sklearn", "rich", "typer", "matplotlib", "PIL", "msgspec")


def names_for_type_checkers() -> dict[str, str]:
    tree = ast.parse(Path(hansa.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    found = {}
    for node in block.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                module = str(node.module)
                found[alias.name] = f"hansa.{alias.name}" if module == "hansa" else module
    return found


def test_the_lazy_table_all_and_the_imports_for_type_checkers_agree() -> None:
    table = vars(hansa)["_MODULE_OF"]
    assert names_for_type_checkers() == table
    assert sorted(hansa.__all__) == sorted(table)


@pytest.mark.parametrize("name", hansa.__all__)
def test_each_public_name_can_be_imported(name: str) -> None:
    assert getattr(hansa, name) is not None
    assert name in dir(hansa)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'shareable'"):
        getattr(hansa, "shareable")  # noqa: B009  mypy refuses hansa.shareable, which is the point of typing/bad


def test_the_version_is_the_distribution_s() -> None:
    assert hansa.__version__.split(".")[0].isdigit()


def test_importing_hansa_pulls_in_nothing_heavy() -> None:
    code = f"import sys, hansa; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
