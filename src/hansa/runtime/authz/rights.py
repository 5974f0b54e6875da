"""Which role may do what through the server: one table, closed for everything that is not in it.

A right is per command, and reaches as far as its scope: `own` runs, those of one's `org`, or `any`. A project_admin sees and stops
everything and submits, but takes home the results of their own runs only; a site has the last word on all of it anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, get_args

Command: TypeAlias = Literal[
    "run.submit",
    "run.list",
    "run.show",
    "run.abort",
    "run.pause",
    "run.resume",
    "run.delete",
    "run.download",
    "site.list",
    "site.disable",
    "site.enable",
    "audit.read",
]
Effect: TypeAlias = Literal["read", "write", "execute-code", "export-data", "admin"]
Scope: TypeAlias = Literal["own", "org", "any"]

COMMANDS: Final[tuple[Command, ...]] = get_args(Command)
EFFECTS: Final[Mapping[Command, Effect]] = {
    "run.submit": "execute-code",
    "run.list": "read",
    "run.show": "read",
    "run.abort": "write",
    "run.pause": "write",
    "run.resume": "write",
    "run.delete": "write",
    "run.download": "export-data",
    "site.list": "read",
    "site.disable": "admin",
    "site.enable": "admin",
    "audit.read": "read",
}
_SEES: Final[Mapping[Command, Scope]] = {"run.list": "any", "run.show": "any", "site.list": "any"}
_OWNS: Final[Mapping[Command, Scope]] = {
    "run.submit": "own",
    "run.abort": "own",
    "run.pause": "own",
    "run.resume": "own",
    "run.delete": "own",
    "run.download": "own",
}
RIGHTS: Final[Mapping[str, Mapping[Command, Scope]]] = {
    "project_admin": {
        **_SEES,
        **_OWNS,
        "run.abort": "any",
        "run.pause": "any",
        "run.resume": "any",
        "run.delete": "any",
        "site.disable": "any",
        "site.enable": "any",
        "audit.read": "any",
    },
    "org_admin": {**_SEES, "run.abort": "org", "site.disable": "org", "site.enable": "org"},
    "lead": {**_SEES, **_OWNS},
    "member": {**_SEES},
    "auditor": {**_SEES, "audit.read": "any"},
}


def permits(role: str | None, command: str, *, own: bool = False, same_org: bool = False) -> bool:
    """Whether the role may do this to a thing that is its own, or its organisation's.

    >>> permits("lead", "run.abort", own=True), permits("lead", "run.abort"), permits("owner", "run.list")
    (True, False, False)
    """
    scopes = {name: scope for name, scope in RIGHTS.get(role or "", {}).items() if name == command}
    match next(iter(scopes.values()), None):
        case "any":
            return True
        case "org":
            return own or same_org
        case "own":
            return own
    return False
