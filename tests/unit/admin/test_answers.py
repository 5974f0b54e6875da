"""What the server says, as lines that people read."""

from hansa.admin.answers import RunEvent


def test_a_round_shows_its_number_and_its_global_metrics_and_a_null_is_nan() -> None:
    said = {"seq": 9, "kind": "round", "at": 3_723.0, "record": {"round": 2, "global": {"auc": 0.81249, "loss": None}, "sites": {}}}
    assert str(RunEvent.of(said)) == "01:02:03  round          round=2 auc=0.8125 loss=nan"


def test_an_event_shows_what_it_says_on_one_line_that_moves_no_cursor() -> None:
    event = RunEvent.of({"seq": 1, "kind": "site.refused", "at": 0.0, "site": "north", "message": "no\n\x1b[2Jruns", "empty": ""})
    assert str(event) == "00:00:00  site.refused   site=north message=no\\n\\x1b[2Jruns"


def test_a_long_value_is_cut_off_and_says_so() -> None:
    assert str(RunEvent(1, "run.ended", 0.0, {"reason": "x" * 500})).endswith("x...")
