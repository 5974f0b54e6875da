"""Who may import whom: the table of docs/architecture.md, checked on the source of every module."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
GROUND = {"errors", "files", "registry", "references"}  # modules that any package may import: the standard library's company
ROOF = {
    "codec",
    "tensors",
    "local",
    "document",
    "schema",
    "stacked",
}  # what the core only lends its name to: any package above core may import them
MAY_IMPORT: dict[str, set[str]] = {  # package: packages of ours, besides itself and the ground
    **{module: set() for module in GROUND},
    "core": set(),
    "sequences": {"core"},
    "local": {"core"},
    "generics": {"core"},
    "stacked": set(),
    "codec": {"core"},
    "tensors": {"core", "codec"},
    "templates": {"core"},
    "document": {"core"},
    "schema": {"core"},
    "aggregation": {"core"},
    "aggregators": {"core", "templates", "aggregation"},
    "analytics": {"core"},
    "data": {"core"},
    "evaluation": {"core"},
    "learning": {"core", "aggregation", "templates"},
    "adapters": {"core"},
    "client": {"core", "runtime"},
    "record": {"core"},
    "config": {"core"},
    "simulation": {"core", "data", "record"},
    "runtime": {"core", "record"},
    "provision": {"core", "runtime"},
    "admin": {"core", "record", "config", "runtime", "provision"},
    "compat": {
        *("core", "local", "sequences", "templates", "aggregation", "aggregators", "learning", "data", "evaluation", "adapters"),
        *("record", "simulation", "client", "admin"),
    },
    "testing": {"core", "aggregation", "data", "evaluation", "learning", "adapters", "record", "config", "simulation", "runtime"},
}
LEAVES = {"jobs", "store", "authz", "audit", "sandbox"}
OF_RUNTIME: dict[str, set[str]] = {  # parts of the runtime: what a part, or a package outside, may import of it
    **{leaf: set() for leaf in LEAVES},
    "audit": {"store"},  # it verifies what a store has chained
    "config": {"authz", "toml"},
    "authz": {"manifest"},
    "jobs": {"manifest"},
    "manifest": set(),
    "toml": set(),
    "logs": set(),
    "protocol": {"authz"},
    "transport": {"protocol"},
    "server": {"protocol", "transport", "config", "manifest"} | LEAVES,
    "client": {"protocol", "transport", "config", "manifest", "logs"} | LEAVES,
    "provision": {"config", "authz", "toml"},
    "admin": {"config", "manifest", "protocol", "transport"} | LEAVES,  # neither server nor client: it speaks HTTP to the one
    "hansa.client": {"sandbox"},
}
FOREIGN: dict[str, set[str]] = {
    **{module: set() for module in GROUND},
    "core": {"numpy", "ml_dtypes", "msgspec", "safetensors"},
}  # others choose their libraries freely
OPTIONAL = {
    "torch",
    "jax",
    "keras",
    "tensorflow",
    "sklearn",
    "matplotlib",
    "PIL",
    "rich",
    "prompt_toolkit",
}  # at module level only in the adapter of that name
MODULES = sorted(SRC.glob("hansa/**/*.py"))


def imports(node: ast.AST, *, top_only: bool = False) -> Iterator[str]:
    """The dotted names imported anywhere below the node; with `top_only`, those that importing the module runs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (f"{'.' * child.level}{child.module or ''}.{alias.name}" for alias in child.names)
        elif not (top_only and (isinstance(child, ast.FunctionDef) or ast.unparse(child).startswith("if TYPE_CHECKING"))):
            yield from imports(child, top_only=top_only)


def violations(module: str, source: str) -> list[str]:
    """What the module (`hansa.core.trees`) imports and may not."""
    tree, own = ast.parse(source), f"{module}.".split(".")[1]
    at_import = {name.split(".")[0] for name in imports(tree, top_only=True)} - sys.stdlib_module_names
    if module.endswith((".commands", ".cli")):
        return sorted(at_import - {"typer"})
    if module == "hansa":
        return sorted(at_import)
    adapter = f"{module}..".split(".")[2] if own == "adapters" else ""
    if own == "compat" and ".pt." in module:  # what FLARE has for PyTorch
        adapter = "torch"
    bad = sorted((at_import & OPTIONAL) - {adapter})
    for name in imports(tree):
        first, second, third = f"{name}..".split(".")[:3]
        ours = first == "hansa" and second in {own} | GROUND | MAY_IMPORT[own] | (ROOF if "core" in MAY_IMPORT[own] else set())
        ours = ours or (adapter == "script" and name.startswith("hansa.client"))  # the framework that it adapts
        ours = ours or (module.startswith("hansa.admin.shell.") and name.startswith("hansa.compat."))  # a session of FLARE's
        ours = ours and not (own == "compat" and second == "admin" and third not in {"client", "answers"})
        other_adapter = own == second == "adapters" and third not in {adapter, "training", "settings", "local"}  # what they share
        part = f"{module}..".split(".")[2] if own == "runtime" else {"client": "hansa.client"}.get(own, own)
        hidden = second == "runtime" and own != "testing" and third not in {part} | OF_RUNTIME.get(part, {third})
        foreign = first and first != "hansa" and first in sys.stdlib_module_names | FOREIGN.get(own, {first})
        if not (ours or foreign) or other_adapter or hidden:
            bad.append(name)
    return bad


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SRC).as_posix())
def test_a_module_imports_only_what_its_layer_may(path: Path) -> None:
    module = ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")
    assert violations(module, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source", "bad"),
    [
        ("hansa.core.trees", "import torch", ["torch", "torch"]),
        ("hansa.core.trees", "def f():\n    import pandas", ["pandas"]),
        ("hansa.core.trees", "from hansa.learning import fedavg", ["hansa.learning.fedavg"]),
        ("hansa.core.trees", "from hansa import learning", ["hansa.learning"]),
        ("hansa.core.trees", "from . import task", ["..task"]),
        ("hansa.errors", "import numpy", ["numpy"]),
        ("hansa.adapters.torch", "import torch\nfrom hansa.adapters import numpy", ["hansa.adapters.numpy"]),
        ("hansa.simulation.pool", "def f():\n    import hansa.adapters.torch", ["hansa.adapters.torch"]),
        ("hansa.learning.fedavg", "from hansa.testing import fakes", ["hansa.testing.fakes"]),
        ("hansa.record.folder", "if True:\n    import matplotlib", ["matplotlib"]),
        ("hansa.data.commands", "import typer, rich", ["rich"]),
        ("hansa.data.commands", "from hansa.core import trees", ["hansa"]),
        ("hansa", "import numpy", ["numpy"]),
        ("hansa.runtime.server.app", "from hansa.runtime.client import loop", ["hansa.runtime.client.loop"]),
        ("hansa.runtime.authz.policy", "from hansa.runtime.protocol import messages", ["hansa.runtime.protocol.messages"]),
        ("hansa.provision.kits", "from hansa.runtime.protocol import messages", ["hansa.runtime.protocol.messages"]),
        ("hansa.runtime.config", "from hansa.provision import kits", ["hansa.provision.kits"]),
        ("hansa.admin.client", "from hansa.runtime.server import views", ["hansa.runtime.server.views"]),
        ("hansa.admin.here.up", "from hansa.simulation import engine", ["hansa.simulation.engine"]),
        ("hansa.client.door", "from hansa.runtime.protocol import messages", ["hansa.runtime.protocol.messages"]),
        ("hansa.adapters.torch", "from hansa.client import line", ["hansa.client.line"]),
        ("hansa.admin.client", "from hansa.compat.flare.admin import lines", ["hansa.compat.flare.admin.lines"]),
        ("hansa.compat.flare.app", "from hansa.admin.here import up", ["hansa.admin.here.up"]),
    ],
)
def test_the_checker_sees_a_wrong_import(module: str, source: str, bad: list[str]) -> None:
    assert violations(module, source) == bad


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("hansa.adapters.torch", "import torch\nfrom hansa.core import trees\nfrom hansa.errors import SpecError"),
        (
            "hansa.record.plot",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import rich\ndef f():\n    import matplotlib",
        ),
        ("hansa.data.commands", "import typer\ndef f():\n    from hansa.learning import fedavg"),
        ("hansa.provision.kits", "from hansa.runtime.config import Kit\nfrom hansa.runtime.authz import policy"),
        ("hansa.client.start", "from hansa.runtime.sandbox import end_with"),
        ("hansa.adapters.script.process", "from hansa.client import line"),
        ("hansa.admin.shell.session", "from hansa.compat.flare.admin import lines"),
        ("hansa.compat.flare.admin.verbs", "from hansa.admin.client import Session"),
        ("hansa.runtime.client.loop", "from hansa.runtime.protocol import messages\nfrom hansa.runtime.store import blobs"),
    ],
)
def test_the_checker_lets_a_right_import_pass(module: str, source: str) -> None:
    assert violations(module, source) == []


def test_core_stays_small() -> None:
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in SRC.glob("hansa/core/*.py")) <= 4_000


@pytest.mark.parametrize("path", sorted(SRC.glob("hansa/*/commands.py")), ids=lambda path: path.parent.name)
def test_a_package_with_commands_imports_nothing_itself_so_that_help_stays_quick(path: Path) -> None:
    assert list(imports(ast.parse((path.parent / "__init__.py").read_text(encoding="utf-8")), top_only=True)) == []
