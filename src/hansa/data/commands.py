"""`hansa data`: look at federated data before anything is trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hansa.data.federated import SiteSummary, Summary

app = typer.Typer(no_args_is_help=True)

_SHOWN = 40  # sites in a table; --json has them all


@app.callback()
def data() -> None:
    """Look at federated data."""


@app.command()
def inspect(
    job: Annotated[str, typer.Argument(metavar="JOB", help="job.toml, file.py:name or package.module:name.")],
    data: Annotated[
        str | None, typer.Option("--data", help="Folder of larger data sets (else HANSA_DATA), or file.py:name.")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As partition.sites=5.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.png", help="Default: JOB-data.png, here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Rows, label skew and quantity skew of each site, as a table and a picture."""
    import os

    from hansa.cli import quiet
    from hansa.config.loading import load
    from hansa.data.federated import describe

    with quiet(as_json):
        loaded = load(job, overrides=overrides or [], data=data, environment=os.environ.get("HANSA_DATA"))
        summary = describe(loaded.data[loaded.job.data])
    picture = _draw(summary, out, default=Path(f"{loaded.job.name}-data.png"))
    if as_json:
        _print_json(summary, picture)
    else:
        _print_table(summary, picture)


def _draw(summary: Summary, out: Path | None, *, default: Path) -> Path | None:
    """The picture's path; None where none was asked for and matplotlib is not installed, which one line says."""
    from hansa.data.preview import plot
    from hansa.errors import MissingExtraError

    try:
        return plot(summary, out or default)
    except MissingExtraError as error:
        if out is not None:
            raise
        typer.echo(f"no picture: {error}", err=True)
        return None


def _print_json(summary: Summary, picture: Path | None) -> None:
    import json

    sites = [
        {
            "site": site.site,
            "rows": dict(site.rows),
            "labels": {str(label): rows for label, rows in site.labels.items()},
            "label_skew": site.label_skew,
        }
        for site in summary.sites
    ]
    whole = {
        "sites": sites,
        "rows": summary.total,
        "labels": {str(label): rows for label, rows in summary.labels.items()},
        "classes": list(summary.classes),
        "quantity_skew": summary.quantity_skew,
        "label_skew": summary.label_skew,
        "picture": None if picture is None else str(picture),
    }
    typer.echo(json.dumps(whole))


def _print_table(summary: Summary, picture: Path | None) -> None:
    """A Rich table on a terminal, else a line a site."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from hansa.data.rows import PARTS

    few = list(summary.labels) if len(summary.labels) <= 4 else []
    named = [summary.label_name(label) for label in few] if few or not summary.labels else ["labels", "most frequent"]
    heads = ["site", *PARTS, *named, "label skew"]
    body = [
        [
            site.site,
            *(str(site.rows[part]) for part in PARTS),
            *([str(site.labels.get(label, 0)) for label in few] if few or not summary.labels else _labels(summary, site)),
            f"{site.label_skew:.2f}",
        ]
        for site in summary.sites
    ]
    console = Console()
    if console.is_terminal:
        table = Table(*heads[:1], title=f"{len(body):,} sites, {summary.total:,} rows", title_justify="left")
        for head in heads[1:]:
            table.add_column(head, justify="right")
        for line in body[:_SHOWN]:
            table.add_row(*(escape(cell) for cell in line))  # a site's name is not markup
        console.print(table)
        if len(body) > _SHOWN:
            console.print(f"and {len(body) - _SHOWN:,} more sites: --json has them all")
    else:
        for line in body:
            typer.echo("  ".join(f"{head} {cell}" for head, cell in zip(heads, line, strict=True)))
    typer.echo(f"quantity skew {summary.quantity_skew:.2f} (Gini of rows a site: 0 even, 1 one site has all)")
    typer.echo(f"label skew {summary.label_skew:.2f} (mean total variation distance from all sites together: 0 alike, 1 disjoint)")
    if picture is not None:
        typer.echo(f"picture: {picture}")


def _labels(summary: Summary, site: SiteSummary) -> list[str]:
    """How many labels a site has, and its most frequent one with its share: where a column a label would be too wide."""
    if not site.labels:
        return ["0", "-"]
    most = max(site.labels, key=lambda label: site.labels[label])
    return [str(len(site.labels)), f"{summary.label_name(most)} ({site.labels[most] / sum(site.labels.values()):.0%})"]
