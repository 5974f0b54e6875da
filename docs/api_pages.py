"""A mkdocs hook: one API page for each package, made from the modules that exist, so that none is forgotten."""

import ast
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

SRC = Path(__file__).parents[1] / "src"
NOT_API = {"commands", "cli"}  # documented as the command line


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The files of the site, with `api/<package>.md` added."""
    for top in sorted((SRC / "hansa").iterdir()):
        if top.name.startswith("_") or not (top.suffix == ".py" or (top / "__init__.py").exists()):
            continue
        modules = [top] if top.suffix == ".py" else sorted(top.rglob("*.py"))
        names = [".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__") for path in modules]
        shown = [name for name in names if not any(part in NOT_API or part.startswith("_") for part in name.split("."))]
        if shown:
            text = f"# {top.stem}\n\n" + "\n\n".join(f"::: hansa.{name.removeprefix('hansa.')}" for name in shown)
            files.append(File.generated(config, f"api/{top.stem}.md", content=text))
    files.append(File.generated(config, "api/hansa.md", content=public_names()))
    return files


def public_names() -> str:
    """A table of what `import hansa as hs` offers, read from the package's own table."""
    tree = ast.parse((SRC / "hansa" / "__init__.py").read_text(encoding="utf-8"))
    table = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_MODULE_OF"
    )
    rows = [f"| `hs.{name}` | `{module}` |" for name, module in table.items()]
    return "\n".join(
        ["# hansa", "", "Each name is imported from its module when it is first used.", "", "| name | from |", "|---|---|", *rows]
    )
