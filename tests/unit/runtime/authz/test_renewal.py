"""When certificates are renewed, and that a kit is whole at every moment of it."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.runtime.parties import DAY, NORTH, NOW, pki

from hansa.errors import IdentityError
from hansa.runtime.authz import renewal
from hansa.runtime.authz.certificates import SKEW_S, certify, key_pem, new_key, pem, read_key, requested_key


def test_a_certificate_is_renewed_after_two_thirds_of_its_life() -> None:
    _, leaf = pki().issue(NORTH, days=90)
    due = NOW - SKEW_S + (90 * DAY + SKEW_S) * 2 / 3
    assert renewal.renew_at([leaf]) == pytest.approx(due)
    assert renewal.ends([leaf]) == NOW + 90 * DAY


def test_a_chain_ends_with_the_first_of_its_certificates() -> None:
    _, leaf = pki().issue(NORTH, days=400)
    _, short = pki().issue(NORTH, days=30)
    assert renewal.ends([leaf, short]) == NOW + 30 * DAY
    assert renewal.renew_at([leaf, short]) < NOW + 21 * DAY


def test_nothing_is_looked_at_more_often_than_is_of_use() -> None:
    _, leaf = pki().issue(NORTH, days=90)
    due = renewal.renew_at([leaf])
    assert renewal.pause_s([leaf], NOW) == 3_600  # a machine may sleep: its clock is looked at
    assert renewal.pause_s([leaf], due - 10) == pytest.approx(10)
    assert renewal.pause_s([leaf], due + 1) == 3_600
    assert renewal.pause_s([leaf], NOW + 90 * DAY - 1_200) == pytest.approx(60)
    assert renewal.pause_s([leaf], NOW + 91 * DAY) == 1.0


def stand(folder: Path) -> tuple[Path, Path]:
    key, leaf = pki().issue(NORTH)
    renewal.write_secret(folder / "key.pem", key_pem(key))
    (folder / "certificate.pem").write_bytes(pem(leaf))
    return folder / "key.pem", folder / "certificate.pem"


def made(asked: renewal.Asked) -> str:
    return pem(certify(requested_key(asked.csr), NORTH, pki().sites, now=NOW, days=90), pki().sites.certificate).decode()


@pytest.mark.parametrize("keep_key", [True, False])
def test_the_new_certificate_takes_the_old_ones_place_with_its_key(tmp_path: Path, keep_key: bool) -> None:
    key, certificate = stand(tmp_path)
    before = key.read_bytes()
    asked = renewal.ask("north", read_key(before), keep_key=keep_key)
    chain = made(asked)
    renewal.replace(key, certificate, asked, chain)
    assert (key.read_bytes() == before) is keep_key
    assert certificate.read_text() == chain
    assert read_key(key.read_bytes()).public_key() == requested_key(asked.csr)
    assert key.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["certificate.pem", "key.pem"]


@pytest.mark.parametrize("what", ["wrong_key", "bad_certificate"])
def test_a_certificate_for_another_key_or_none_at_all_changes_nothing(tmp_path: Path, what: str) -> None:
    key, certificate = stand(tmp_path)
    before = (key.read_bytes(), certificate.read_bytes())
    asked = renewal.ask("north", read_key(before[0]), keep_key=False)
    chain = made(renewal.ask("north", new_key(), keep_key=True)) if what == "wrong_key" else "<html>a proxy's page</html>"
    with pytest.raises(IdentityError) as caught:
        renewal.replace(key, certificate, asked, chain)
    assert caught.value.code == what
    assert (key.read_bytes(), certificate.read_bytes()) == before


def killed_at(step: int, replace: Callable[[], None], folder: Path) -> int:
    """The exit code of a child process that is killed before the file operation of that number in the folder."""
    if (child := os.fork()) == 0:
        steps = itertools.count(1)

        def hook(event: str, args: tuple[object, ...]) -> None:
            if event in ("open", "os.rename", "os.remove") and str(folder) in str(args[0]) and next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        replace()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_killed_before_any_step_of_the_replacement_the_kit_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    asked = renewal.ask("north", new_key(), keep_key=False)
    new = (key_pem(asked.key), made(asked).encode())
    outcomes = []
    for step in range(1, 40):
        folder = tmp_path / str(step)
        folder.mkdir()
        key, certificate = stand(folder)
        old = (key.read_bytes(), certificate.read_bytes())
        code = killed_at(step, functools.partial(renewal.replace, key, certificate, asked, new[1].decode()), folder)
        renewal.settle(key, certificate)
        stands = (key.read_bytes(), certificate.read_bytes())
        assert stands in (old, new), step
        assert not (folder / renewal.RENEWED).exists()
        outcomes.append(stands == old)
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert len(outcomes) > 8  # every file that is opened, renamed or removed was a place to die
    assert (outcomes[0], outcomes[-1]) == (True, False)
