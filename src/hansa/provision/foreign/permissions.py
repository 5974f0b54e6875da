"""authorization.json of FLARE 2.1 and later: a table of roles and rights, compared with ours, which no project changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hansa.errors import ConfigError
from hansa.provision.foreign.files import Plain, Steps
from hansa.provision.foreign.keys import Keys
from hansa.runtime.authz.policy import Role
from hansa.runtime.authz.rights import RIGHTS, Command

_COMMANDS: Final[Mapping[str, Command]] = {
    "submit_job": "run.submit",
    "clone_job": "run.submit",
    "manage_job": "run.abort",
    "download_job": "run.download",
    "view": "run.show",
    "operate": "site.disable",
}
_ELSEWHERE: Final[Mapping[str, str]] = {
    "byoc": "which code runs, each site says: code in its site.toml, closed until it does",
    "shell_commands": "there is no remote shell; `hansa job logs` shows what sites let out",
}
_REACH: Final = {None: 0, "own": 1, "org": 2, "any": 3}
_SAID: Final = {0: "nothing", 1: "their own", 2: "their organisation's", 3: "any"}
_CONTROLS: Final = {"any": 3, "all": 3, "none": 0, "o:site": 2, "o:submitter": 2, "n:submitter": 1}


def compare(keys: Keys, base: Steps) -> dict[str, Role]:
    """Our role for each role of the table at `base`; says of each right how ours differs.

    Raises:
        ConfigError: a right's value is no text and no list of texts.
    """
    keys.unused((*base[:-1], "format_version"), "the format's version")
    found: dict[str, Role] = {}
    for role in keys.names(base):
        at = (*base, role)
        value = keys.at(at)
        rights = {name: _reach(keys, (*at, name)) for name in keys.names(at)} if isinstance(value, dict) else None
        whole = None if rights is not None else _reach(keys, at)
        found[role] = _ours(role, rights if rights is not None else dict.fromkeys(_COMMANDS, whole or 0))
        if rights is None:
            told = f"role {found[role]}, which does what our table of rights says"
            (keys.became if found[role] == role else keys.decide)(at, told)
        for right in rights or {}:
            _tell(keys, (*at, right), (rights or {})[right], found[role])
    return found


def _ours(role: str, rights: Mapping[str, int]) -> Role:
    """The role of that name; for a name of their own, the one that permits no more."""
    for ours in ("project_admin", "org_admin", "lead", "member", "auditor"):
        if role == ours:
            return ours
    return "lead" if rights.get("submit_job") else "org_admin" if rights.get("operate") else "member"


def _tell(keys: Keys, steps: Steps, theirs: int, role: Role) -> None:
    right = str(steps[-1])
    if right in _ELSEWHERE:
        return keys.unused(steps, _ELSEWHERE[right])
    command = _COMMANDS.get(right)
    if command is None:
        return keys.unused(steps, "a command of theirs: rights here are per command of ours")
    ours = _REACH[RIGHTS[role].get(command)]
    if command == "run.submit":  # whose jobs a site takes, it says itself
        told = f"{role}: {'submits; each site says whose jobs it takes' if ours else 'does not submit'}"
        wider = ours > 0 and theirs == 0
    else:
        told = f"{role}: {command} of {_SAID[ours]}" + (f", narrower than {_SAID[theirs]}" if ours < theirs else "")
        wider = ours > theirs
    if wider:
        return keys.decide(steps, f"{told}: wider than before; is another role meant?")
    return keys.became(steps, told)


def _reach(keys: Keys, steps: Steps) -> int:
    """How far a right reaches, 0 to 3; of several controls the widest. Single people and organisations count as their own."""
    value: Plain = keys.at(steps)
    controls = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str) for each in controls):
        expected = "any, none, o:site, o:submitter, n:submitter, or a list of these"
        raise ConfigError("a wrong value", path=keys.content.where(steps), got=repr(value)[:80], expected=expected)
    return max((_CONTROLS.get(str(each), 1) for each in controls), default=0)
