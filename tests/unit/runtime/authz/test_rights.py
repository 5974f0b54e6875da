"""Every cell of the table of rights."""

from __future__ import annotations

import itertools

import pytest

from hansa.runtime.authz.rights import COMMANDS, EFFECTS, RIGHTS, permits

# role: what it may do to its own, to its organisation's, to anybody's
READ = {"run.list", "run.show", "site.list"}
STEER = {"run.abort", "run.pause", "run.resume", "run.delete"}
EXPECTED: dict[str, tuple[set[str], set[str], set[str]]] = {
    "project_admin": (
        READ | STEER | {"run.submit", "run.download", "site.disable", "site.enable", "audit.read"},
        READ | STEER | {"site.disable", "site.enable", "audit.read"},
        READ | STEER | {"site.disable", "site.enable", "audit.read"},
    ),
    "org_admin": (READ | {"run.abort", "site.disable", "site.enable"}, READ | {"run.abort", "site.disable", "site.enable"}, READ),
    "lead": (READ | STEER | {"run.submit", "run.download"}, READ, READ),
    "member": (READ, READ, READ),
    "auditor": (READ | {"audit.read"}, READ | {"audit.read"}, READ | {"audit.read"}),
}


@pytest.mark.parametrize("role", EXPECTED)
def test_a_role_may_do_what_the_table_says_and_nothing_else(role: str) -> None:
    for command, (place, relation) in itertools.product(
        COMMANDS, enumerate([{"own": True, "same_org": True}, {"same_org": True}, {}])
    ):
        assert permits(role, command, **relation) == (command in EXPECTED[role][place]), (role, command, relation)


@pytest.mark.parametrize("role", [None, "", "owner", "Lead", "project_admin "])
def test_an_unknown_role_may_do_nothing(role: str | None) -> None:
    assert not any(permits(role, command, own=True, same_org=True) for command in COMMANDS)


def test_an_unknown_command_is_closed_and_every_command_has_its_effect() -> None:
    assert not any(permits(role, command, own=True) for role in RIGHTS for command in ("", "run.shell", "RUN.LIST"))
    assert set(EFFECTS) == set(COMMANDS)
