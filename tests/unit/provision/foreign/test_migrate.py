"""Project files of Clara Train and FLARE become projects of ours; every key is told of; nobody gets more than they had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.provision.foreign.offices import AUTHZ, CLARA, FLARE, FLARE_2_0, PERMISSIONS, place

from hansa.errors import ConfigError
from hansa.provision.foreign.files import dotted
from hansa.provision.foreign.migrate import Migrated, migrate
from hansa.provision.project import check, read_project, to_toml
from hansa.runtime.authz.rights import permits


def roles(made: Migrated) -> dict[str, str]:
    return {person.name: person.role for person in made.project.people}


def fates(made: Migrated) -> dict[str, tuple[str, str]]:
    return {line.key: (line.fate, line.text) for line in made.lines}


def test_a_clara_project_is_the_same_federation(tmp_path: Path) -> None:
    made = migrate(place(tmp_path, CLARA, AUTHZ))
    check(made.project)
    assert made.kind == "Clara Train"
    assert (made.project.name, made.project.url, made.project.policy.min_cohort) == ("Project1", "https://fl.example.org:8002", 3)
    assert [(site.name, site.org) for site in made.project.sites] == [
        ("client1", "org1"),
        ("client3", "org2"),
        ("client4", "Secure"),
    ]
    assert roles(made) == {
        "admin@example.org": "project_admin",
        "it@org1.example": "org_admin",
        "own@org1.example": "lead",
        "research@org2.example": "lead",
        "it@secure.example": "lead",
        "nobody@org2.example": "member",
    }
    assert not [line for line in made.lines if line.fate == "unknown"]
    told = fates(made)
    assert told["he"] == ("not used", told["he"][1])
    assert "no homomorphic encryption" in told["he"][1]
    assert told["server.admin_port"][0] == "not used"
    assert told["admin_clients[5].email"][0] == "decide"


def test_what_sites_permitted_is_suggested_to_them_and_holds_for_nobody_yet(tmp_path: Path) -> None:
    made = migrate(place(tmp_path, CLARA, AUTHZ))
    assert '# authors = ["admin@example.org", "own@org1.example", "research@org2.example"]' in made.notes["client1"]
    assert '# code = "any"' in made.notes["client1"]
    assert "own@org1.example" not in made.notes["client3"]  # train_self: their own organisation's site only
    assert "code" not in made.notes["client3"].partition("authors")[2]
    assert "research@org2.example" not in made.notes["client4"]  # the group Secure gives lead_researcher nothing
    assert "it@secure.example" in made.notes["client4"]
    assert all(line.startswith("#") for note in made.notes.values() for line in note.splitlines() if line)


def test_without_rights_people_see_and_do_no_more_until_somebody_says_so(tmp_path: Path) -> None:
    path = place(tmp_path, CLARA)
    made = migrate(path)
    assert set(roles(made).values()) == {"member"}
    with pytest.raises(ConfigError, match="nobody is project_admin"):
        check(made.project)
    check(migrate(path, roles={"admin@example.org": "project_admin"}).project)
    with pytest.raises(ConfigError, match="nobody is called"):
        migrate(path, roles={"adm": "lead"})


def test_rights_that_were_not_checked_are_to_be_decided(tmp_path: Path) -> None:
    made = migrate(place(tmp_path, CLARA.replace("auth: true", "auth: false")))
    assert fates(made)["server.auth"][0] == "decide"
    assert set(roles(made).values()) == {"member"}


def test_a_flare_project_keeps_its_roles_and_its_address(tmp_path: Path) -> None:
    made = migrate(place(tmp_path, FLARE))
    check(made.project)
    assert made.kind == "NVIDIA FLARE"
    assert (made.project.url, made.project.hosts) == ("https://fl.example.org:8002", ("fl.example.org", "10.0.0.7"))
    assert roles(made) == {"super@a.org": "project_admin", "admin@a.org": "org_admin", "lead@b.org": "lead", "user@b.org": "member"}
    told = fates(made)
    assert told["participants[1].enable_byoc"][0] == "not used"
    assert told["builders[3]"][1].startswith("no homomorphic encryption")
    assert not [line for line in made.lines if line.fate in ("unknown", "decide")]


def test_flare_2_0_holds_its_rights_in_a_builder(tmp_path: Path) -> None:
    made = migrate(place(tmp_path, FLARE_2_0))
    check(made.project)
    assert roles(made) == {"admin@nvidia.example": "project_admin", "lead@nvidia.example": "lead"}
    assert made.notes["site-1"].count('# code = "any"') == 1
    assert not [line for line in made.lines if line.fate == "unknown"]


def test_flares_table_of_rights_is_compared_with_ours(tmp_path: Path) -> None:
    made = migrate(place(tmp_path, FLARE, PERMISSIONS, name="authorization.json"))
    told = fates(made)
    assert told["permissions.lead.download_job"] == ("became", "lead: run.download of their own")
    assert told["permissions.lead.operate"] == ("became", "lead: site.disable of nothing, narrower than their organisation's")
    assert told["permissions.member.view"][0] == "decide"  # ours sees any run, theirs their organisation's
    assert told["permissions.lead.ls"][0] == "not used"
    assert told["permissions.project_admin"][0] == "became"


@pytest.mark.parametrize(
    ("change", "what", "where"),
    [
        (("fed_learn_port: 8002", "fed_learn_port: eighty"), "a wrong value", "project.yml:10 server.fed_learn_port"),
        (("fed_learn_port: 8002", "fed_learn_port: 80020"), "not a port", "fed_learn_port"),
        (("min_num_clients: 3", "min_num_clients: -1"), "not a number of sites", "min_num_clients"),
        (("cn: fl.example.org", "cm: fl.example.org"), "a key is missing", "server.cn"),
        (("  - {org: org1, client_name: client1}", "  - client1"), "a wrong value", "project.yml:17 fl_clients[0]"),
        (("name: Project1", "name: [Project1]"), "a wrong value", "project.yml:2 name"),
        (("server:", "sever:"), "not a project file", "project.yml"),
    ],
)
def test_a_wrong_value_is_named_with_its_line(tmp_path: Path, change: tuple[str, str], what: str, where: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        migrate(place(tmp_path, CLARA.replace(*change)))
    assert where in str(caught.value)


def test_an_unknown_key_is_told_of_wherever_it_stands(tmp_path: Path) -> None:
    strange = json.loads(json.dumps(AUTHZ))
    strange["users"]["it@org1.example"]["phone"] = "1"
    strange["groups"]["general"]["role_rights"]["lead_it"]["fly"] = True
    strange["groups"]["strict"]["rules"]["allow_dogs"] = True
    text = CLARA.replace("auth: true", "auth: true\n  colour: blue").replace(
        "client_name: client1", "client_name: client1, gpus: 2"
    )
    made = migrate(place(tmp_path, text, strange))
    unknown = {line.key for line in made.lines if line.fate == "unknown"}
    assert unknown == {
        "server.colour",
        "fl_clients[0].gpus",
        "users.'it@org1.example'.phone",
        "groups.general.role_rights.lead_it.fly",
        "groups.strict.rules.allow_dogs",
    }


def leaves(value: Any, steps: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    if isinstance(value, dict) and value:
        return [leaf for name, each in value.items() for leaf in leaves(each, (*steps, name))]
    if isinstance(value, list) and value:
        return [leaf for number, each in enumerate(value) for leaf in leaves(each, (*steps, number))]
    return [steps]


FLAGS = st.sampled_from(["train_all", "train_self", "deploy_all", "deploy_self", "operate_all", "operate_self", "view_all", "odd"])
RIGHTS = st.dictionaries(FLAGS, st.booleans(), max_size=4)
GROUP = st.fixed_dictionaries(
    {"role_rights": st.dictionaries(st.sampled_from(["r1", "r2", "super"]), RIGHTS, max_size=3)},
    optional={"rules": st.dictionaries(st.sampled_from(["allow_byoc", "odd"]), st.booleans()), "desc": st.just("d")},
)
OLD = st.fixed_dictionaries(
    {
        "groups": st.dictionaries(st.sampled_from(["g1", "g2"]), GROUP, max_size=2),
        "orgs": st.dictionaries(st.sampled_from(["org1", "org2", "nvidia"]), st.lists(st.sampled_from(["g1", "g2"]), max_size=2)),
        "users": st.dictionaries(
            st.sampled_from(["it@org1.example", "research@org2.example", "stranger@x"]),
            st.fixed_dictionaries({"roles": st.lists(st.sampled_from(["r1", "r2"]), max_size=2)}, optional={"odd": st.just(1)}),
        ),
    },
    optional={"odd": st.just([1, {"a": 2}])},
)


@settings(max_examples=200, deadline=None)
@given(old=OLD)
def test_each_value_is_told_of_once_and_nobody_gains(old: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    made = migrate(place(tmp_path_factory.getbasetemp(), CLARA, old))
    keys = [line.key for line in made.lines if line.file == "authz_config.json"]
    for leaf in leaves(old):
        assert sum(dotted(leaf[:n]) in keys for n in range(1, len(leaf) + 1)) == (1 if leaf else 0)
    for name, user in old["users"].items():
        role = roles(made).get(name)
        org = {"it@org1.example": "org1", "research@org2.example": "org2"}.get(name)
        held = [
            (right, site_org)
            for site_org in ("org1", "org2", "Secure")
            for group in old["orgs"].get(site_org, [])
            for each in user["roles"]
            for right, on in old["groups"].get(group, {}).get("role_rights", {}).get(each, {}).items()
            if on and (right.endswith("_all") or site_org == org)
        ]
        if permits(role, "run.submit", own=True):
            assert any(right.startswith("train") for right, _ in held)
        if permits(role, "site.disable", same_org=True):
            assert any(right.startswith("operate") for right, _ in held)


def test_our_own_file_says_the_same(tmp_path: Path) -> None:
    for text in (CLARA, FLARE, FLARE_2_0):
        made = migrate(place(tmp_path, text, AUTHZ if text is CLARA else None))
        own = tmp_path / "project.toml"
        own.write_text(to_toml(made.project))
        assert read_project(own) == made.project
        (tmp_path / "authz_config.json").unlink(missing_ok=True)
