"""Which runs are offered, refused and started: the pure decision, by hand."""

from __future__ import annotations

from hansa.runtime.protocol.messages import Hello
from hansa.runtime.server.known import Run, Submitted
from hansa.runtime.server.scheduler import decide
from hansa.runtime.server.state import Book

SITES = ["a", "b", "c"]
ALL = frozenset(SITES)


def book(*runs: Run, cores: int = 1) -> Book:
    made = Book(runs={run.id: run for run in runs})
    for name in SITES:
        made.site(name).hello = Hello([1], "test", cores=cores)
    return made


def run(name: str, *, created: float = 0.0, priority: int = 0, least: int = 3, offered: bool = True, **answers: str) -> Run:
    what = Submitted(
        run=name, job="j", author="lea", org="o", bundle="", bundle_bytes=0, data="d", job_hash="", reference="", seed=0,
        sites=SITES, min_sites=least, priority=priority,
    )  # fmt: skip
    return Run(what, created, offered=offered, answers=answers)


def accepted(name: str, *, created: float = 0.0, priority: int = 0) -> Run:
    return run(name, created=created, priority=priority, a="", b="", c="")


def test_a_new_run_is_offered_and_waits_for_answers() -> None:
    assert decide(book(run("r", offered=False)), ALL, most=8).offer == ("r",)
    assert decide(book(run("r", a="", b="")), ALL, most=8).start == ()
    assert decide(book(accepted("r")), ALL, most=8).start == ("r",)


def test_a_run_starts_with_enough_sites_once_nobody_who_is_there_still_thinks_about_it() -> None:
    some = run("r", least=2, a="", b="")
    assert decide(book(some), ALL, most=8).start == ()
    assert decide(book(some), ALL - {"c"}, most=8).start == ("r",)
    assert decide(book(some), ALL - {"a", "c"}, most=8).start == ()


def test_a_run_that_cannot_get_enough_sites_any_more_is_refused_with_their_reasons() -> None:
    refused = decide(book(run("r", least=3, b="not on Sundays")), ALL, most=8).refuse
    assert refused == (("r", "3 sites are needed of 3; refused by b: not on Sundays"),)


def test_higher_priorities_start_first_and_equals_in_their_order() -> None:
    runs = [accepted("late", created=2.0), accepted("early", created=1.0), accepted("urgent", created=3.0, priority=5)]
    assert decide(book(*runs, cores=2), ALL, most=8).start == ("urgent", "early")
    assert decide(book(*runs, cores=8), ALL, most=1).start == ("urgent",)


def test_a_site_takes_runs_up_to_its_cores_and_is_kept_for_the_first_that_waits_for_it() -> None:
    going = accepted("going")
    going.state = "running"
    waiting = [accepted("first", created=1.0), accepted("second", created=2.0)]
    assert decide(book(going, *waiting, cores=1), ALL, most=8).start == ()
    assert decide(book(going, *waiting, cores=2), ALL, most=8).start == ("first",)


def test_a_run_that_nobody_answers_holds_nobody_up() -> None:
    silent, ready = run("silent", created=1.0), accepted("ready", created=2.0)
    assert decide(book(silent, ready), ALL, most=8).start == ("ready",)
    assert decide(book(silent, ready), frozenset(), most=8).start == ()


def test_a_disabled_site_does_not_count() -> None:
    made = book(accepted("r"))
    made.site("a").disabled = "by ada"
    assert decide(made, ALL, most=8).start == ()
