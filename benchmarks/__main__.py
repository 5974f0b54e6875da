"""`python -m benchmarks [--small] [--only W1] [--out FILE.json]`: measure, print a table, keep the results."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import figures_of, in_child, machine

WORKLOADS = {
    "W1": "many_clients",
    "W2": "cross_silo",
    "W3": "exchange",
    "W3-deployed": "deployed",
    "W4": "startup",
    "W5": "fold",
    "W6": "crowd",
    "W7": "deployed_start",
    "W8": "tracing",
    "W9": "flare_door",
}


def main() -> None:
    """Measure the workloads that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--small", action="store_true", help="a minute in all: shows that everything runs; its figures mean little")
    parser.add_argument("--only", action="append", choices=[*WORKLOADS], help="this workload alone; may be repeated")
    parser.add_argument("--out", type=Path, help="the JSON file to write; workloads that are not measured now are kept")
    options = parser.parse_args()
    chosen = options.only or list(WORKLOADS)
    kept: dict[str, Any] = {}
    if options.out is not None and options.only and options.out.exists():
        kept = json.loads(options.out.read_text(encoding="utf-8"))["workloads"]
    found: dict[str, Any] = {}
    for workload in chosen:
        here = machine()
        figures = in_child(
            figures_of, WORKLOADS[workload], options.small
        )  # a workload must not warm or fill the next one's process
        when = datetime.now(UTC).isoformat(timespec="seconds")
        found[workload] = {"measured": when, "small": options.small, "machine": here, "figures": figures}
        for figure in figures:
            print(_line(figure), flush=True)
    if options.out is not None:
        merged = {**kept, **found}
        document = {"workloads": {name: merged[name] for name in WORKLOADS if name in merged}}
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _line(figure: dict[str, Any]) -> str:
    target = "" if figure["target"] is None else f"{figure['sense']} {figure['target']:g}"
    verdict = {True: "met", False: "MISSED", None: ""}[figure["met"]]
    return f"{figure['workload']}  {figure['name']:<48} {figure['value']:>8.3f} {figure['unit']:<20} {target:>9}  {verdict}"


if __name__ == "__main__":
    main()
