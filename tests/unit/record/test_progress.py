import io

from hansa.record.progress import Progress

RECORD = {"round": 2, "global": {"accuracy": 0.5, "loss": 0.25}, "refused": [{"site": "b"}], "lost": [], "seconds": 0.126}


def test_without_a_terminal_there_is_one_plain_line_a_round() -> None:
    out = io.StringIO()
    with Progress(20, sites=3, file=out) as progress:
        progress.sites_done(1, 3)
        progress.round_done(RECORD)
    assert out.getvalue() == "round 2/20  3 sites, 1 refused  loss 0.25  accuracy 0.5  0.13 s\n"


def test_a_cohort_is_told_from_all_sites() -> None:
    out = io.StringIO()
    sites = {"a": {"train_loss": 1.0, "loss": 2.0}, "b": {"train_loss": 1.0}, "c": {"loss": 2.0}}
    with Progress(3, sites=20, file=out) as progress:
        progress.round_done({"round": 1, "sites": sites})
        progress.round_done({"round": 2, "sites": {"a": {"n": 1.0}}})
        progress.round_done({"round": 3})
    assert out.getvalue() == "round 1/3  2 of 20 sites\nround 2/3  1 of 20 sites\nround 3/3  20 sites\n"


def test_a_silent_run_prints_nothing() -> None:
    out = io.StringIO()
    with Progress(20, mode="silent", file=out) as progress:
        progress.round_done(RECORD)
        progress.note("hello")
    assert out.getvalue() == ""


def test_on_a_terminal_a_bar_shows_rounds_and_loss() -> None:
    out = io.StringIO()
    with Progress(2, sites=3, title="digits", mode="live", file=out) as progress:
        progress.sites_done(1, 3)
        progress.note("resumed from round 1")
        progress.round_done(RECORD)
    assert "digits" in out.getvalue()
    assert "round 2/2" in out.getvalue()
    assert "loss 0.25" in out.getvalue()
    assert "resumed from round 1" in out.getvalue()


def test_an_unknown_loss_is_shown_as_nan() -> None:
    out = io.StringIO()
    with Progress(1, file=out) as progress:
        progress.round_done({"round": 1, "global": {"loss": None}})
    assert out.getvalue() == "round 1/1  loss nan\n"
