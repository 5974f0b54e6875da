"""Live progress of a run on stderr: a bar on a terminal, else one plain line a round."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TextIO, TypeAlias

from hansa.record.series import rank

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

Mode: TypeAlias = Literal["auto", "live", "plain", "silent"]


class Progress:
    """Shows each finished round. Use it as a context manager; it starts no thread.

    `rounds` is how many the run will have, `done` how many are behind it already (a resumed run), `sites` how many take part.
    `mode` "auto" is a live bar where `file` is a terminal and plain lines elsewhere. `file` None is stderr.
    """

    def __init__(
        self, rounds: int, *, sites: int = 0, title: str = "", done: int = 0, mode: Mode = "auto", file: TextIO | None = None
    ) -> None:
        self.rounds, self.sites, self.title, self.done = rounds, sites, title, done
        self.file = sys.stderr if file is None else file
        self.mode: Mode = ("live" if self.file.isatty() else "plain") if mode == "auto" else mode
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._shown = -math.inf
        self._wide = True  # whether the terminal has room for all numbers

    def __enter__(self) -> Self:
        if self.mode == "live":
            self._start_bar()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.refresh()
            self._bar.stop()
            self._bar = None

    def round_done(self, record: Mapping[str, Any]) -> None:
        """Show a round: a record as metrics.jsonl has it."""
        self.done = int(record.get("round", self.done + 1))
        if self.mode == "plain":
            self.note(self._line(record))
        elif self._bar is not None and self._task is not None:
            at = f"{self.done}/{self.rounds}"
            self._bar.update(
                self._task,
                completed=self.done,
                at=at,
                numbers=_numbers(record, most=3 if self._wide else 1),
                sites=self._answers(record),
            )
            self._refresh(last=self.done >= self.rounds)

    def sites_done(self, answered: int, asked: int) -> None:
        """Show how far the current round is; only the live bar does."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.done + answered / max(asked, 1), sites=f"{answered}/{asked} sites")
            self._refresh()

    def note(self, text: str) -> None:
        """One line of text, above the bar where there is one."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        elif self.mode != "silent":
            self.file.write(f"{text}\n")
            self.file.flush()

    def _start_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        console = Console(file=self.file)
        self._wide = console.width >= 110
        # No refresh thread: workers may be forked while the bar is up.
        self._bar = RichProgress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=28 if self._wide else 12, complete_style="#2563a8", finished_style="#2e7d4f"),
            TextColumn("round {task.fields[at]}"),  # Rich's own n/N column would print fractions of a round
            TextColumn("{task.fields[sites]}", style="dim"),
            TextColumn("{task.fields[numbers]}"),
            *([TimeElapsedColumn()] if self._wide else []),
            TextColumn("left", style="dim"),
            TimeRemainingColumn(),
            console=console,
            auto_refresh=False,
        )
        sites = f"{self.sites} sites" if self.sites else ""
        at = f"{self.done}/{self.rounds}"
        self._task = self._bar.add_task(self.title, total=self.rounds, completed=self.done, at=at, numbers="", sites=sites)
        self._bar.start()
        self._bar.refresh()

    def _refresh(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if self._bar is not None and (last or now - self._shown > 0.1):
            self._shown = now
            self._bar.refresh()

    def _line(self, record: Mapping[str, Any]) -> str:
        parts = [f"round {self.done}/{self.rounds}", str(record.get("model", "")), self._answers(record), _numbers(record)]
        if "seconds" in record:
            parts.append(f"{record['seconds']:.2f} s")
        return "  ".join(part for part in parts if part)

    def _answers(self, record: Mapping[str, Any]) -> str:
        refused, lost = len(record.get("refused", ())), len(record.get("lost", ()))
        parts = [_of(_trained(record), self.sites)] if self.sites else []
        parts += [f"{refused} refused"] if refused else []
        parts += [f"{lost} lost"] if lost else []
        return ", ".join(parts)


def _trained(record: Mapping[str, Any]) -> int:
    """How many sites trained in the round: those with metrics of training, where any has them."""
    sites = record.get("sites", {})
    return sum(any(name.startswith("train_") for name in values) for values in sites.values()) or len(sites)


def _of(answered: int, sites: int) -> str:
    return f"{sites} sites" if answered in (0, sites) else f"{answered} of {sites} sites"


def _numbers(record: Mapping[str, Any], *, most: int = 4) -> str:
    """The global metrics: the loss, the others, training's, those of aggregators."""
    found = record.get("global", {})
    names = sorted(found, key=lambda name: (*rank(name), name != "loss", name))
    return "  ".join(f"{name} {'nan' if found[name] is None else format(found[name], '.4g')}" for name in names[:most])
