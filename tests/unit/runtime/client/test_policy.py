import re
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
import pytest

from hansa.runtime.client.policy import Asked, Decision, code_hash, decide
from hansa.runtime.config import SitePolicy
from hansa.runtime.manifest import Manifest

NOON = datetime(2024, 5, 6, 12, 0, 30)
MANIFEST = Manifest(
    reference="job.py:job",
    job="hearts",
    data="heart",
    plan_hash="",
    files={"job.py": "ab" * 32},
    requires=["numpy"],
)
ASKED = Asked(author="ada", org="Uni", project="hearts", manifest=MANIFEST, population=4, here=("heart",))
OPEN = SitePolicy(authors=("ada",), code="any")
HASH = code_hash(MANIFEST)


def with_(**changes: Any) -> SitePolicy:
    return msgspec.structs.replace(OPEN, **changes)


@pytest.mark.parametrize(
    "policy",
    [
        OPEN,
        with_(authors="any"),
        with_(authors=(), orgs=("Uni",)),
        with_(authors=(), orgs="any"),
        with_(authors=("bob",), orgs=("Uni",)),
        with_(projects=("hearts", "lungs")),
        with_(code=(HASH,)),
        with_(code=("0" * 64, HASH)),
        with_(min_cohort=4),
        with_(hours="11:00-13:00"),
        with_(hours="12:00-12:01"),
        with_(hours="22:00-12:01"),
        with_(approval="by_hand", code=(HASH,)),
    ],
)
def test_what_the_policy_names_is_accepted(policy: SitePolicy) -> None:
    assert decide(policy, ASKED, NOON) == Decision("accept")


@pytest.mark.parametrize(
    ("policy", "code", "words"),
    [
        (None, "closed", "no policy"),
        (SitePolicy(), "author", "no jobs of ada"),
        (with_(authors=()), "author", "no jobs of ada"),
        (with_(authors=("Ada",)), "author", "no jobs of ada"),
        (with_(authors=(), orgs=("North",)), "author", r"ada \(Uni\)"),
        (with_(projects=()), "project", "project hearts"),
        (with_(projects=("lungs",)), "project", "project hearts"),
        (with_(code=()), "code", HASH),
        (with_(code=("0" * 64,)), "code", HASH),
        (with_(min_cohort=5), "min_cohort", "at least 5 sites; this run has 4"),
    ],
)
def test_what_the_policy_does_not_name_is_refused_with_the_reason(policy: SitePolicy | None, code: str, words: str) -> None:
    decision = decide(policy, ASKED, NOON)
    assert (decision.verdict, decision.code) == ("refuse", code)
    assert re.search(words, decision.reason)


@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        (replace(ASKED, here=()), "data", "'heart'"),
        (replace(ASKED, here=("hearts", "lungs")), "data", "'heart'"),
        (replace(ASKED, collected={"rows": ["rows"]}), "collect", "nobody aggregates (rows: rows)"),
        (replace(ASKED, collected={"local_model@2": ["x"], "rows": ["a", "b"]}), "collect", "rows: a, b"),
        (replace(ASKED, lack=("requires", "this site has no no-such-thing installed")), "requires", "no-such-thing"),
        (replace(ASKED, lack=("environment", "this site has no environment 'x'")), "environment", "'x'"),
    ],
)
def test_what_the_site_lacks_is_named_before_the_first_round(asked: Asked, code: str, words: str) -> None:
    decision = decide(OPEN, asked, NOON)
    assert (decision.verdict, decision.code) == ("refuse", code)
    assert words in decision.reason


@pytest.mark.parametrize(
    ("hours", "wait_s"), [("12:01-13:00", 30.0), ("22:00-06:00", 36_000 - 30.0), ("11:00-12:00", 23 * 3_600 - 30.0)]
)
def test_outside_its_hours_a_site_waits_until_they_begin(hours: str, wait_s: float) -> None:
    decision = decide(with_(hours=hours), ASKED, NOON)
    assert (decision.verdict, decision.wait_s) == ("wait", wait_s)


@pytest.mark.parametrize("code", ["any", ()])
def test_approval_by_hand_waits_for_a_persons_word_and_does_what_it_says(code: Any) -> None:
    by_hand = with_(approval="by_hand", code=code)
    waits = decide(by_hand, ASKED, NOON)
    assert (waits.verdict, waits.code) == ("wait", "approval")
    assert HASH in waits.reason
    assert decide(by_hand, replace(ASKED, said=("yes", "")), NOON).verdict == "accept"
    refused = decide(by_hand, replace(ASKED, said=("no", "it reads names")), NOON)
    assert (refused.verdict, refused.code) == ("refuse", "approval")
    assert "it reads names" in refused.reason
    assert decide(by_hand, replace(ASKED, population=1), NOON).code == "min_cohort"  # a refusal comes before the wait


def test_a_word_of_a_person_counts_for_nothing_where_nobody_is_asked() -> None:
    assert decide(with_(code=()), replace(ASKED, said=("yes", "")), NOON).code == "code"


def test_a_refusal_comes_before_a_wait() -> None:
    assert decide(with_(hours="22:00-06:00", authors=()), ASKED, NOON).verdict == "refuse"


def test_the_size_of_the_cohort_is_not_judged_before_it_is_known() -> None:
    assert decide(with_(min_cohort=5), replace(ASKED, population=None), NOON).verdict == "accept"


def test_the_hash_of_code_changes_with_any_file_and_with_what_is_started_and_with_nothing_else() -> None:
    def changed(**changes: Any) -> str:
        return code_hash(msgspec.structs.replace(MANIFEST, **changes))

    assert changed(reference="job.py:other") != HASH
    assert changed(files={"job.py": "cd" * 32}) != HASH
    assert changed(files={**MANIFEST.files, "more.py": "ab" * 32}) != HASH
    assert changed(author="bob", signature="x", seed=3) == HASH


def test_a_sites_own_model_is_asked_for_in_vain_unless_its_policy_says_so() -> None:
    for task in ("local_model", "local_model@3"):
        said = decide(OPEN, replace(ASKED, task=task), NOON)
        assert (said.verdict, said.code) == ("refuse", "local_models")
        assert decide(with_(local_models=True), replace(ASKED, task=task), NOON).verdict == "accept"
    assert decide(OPEN, replace(ASKED, task="local_train"), NOON).verdict == "accept"
