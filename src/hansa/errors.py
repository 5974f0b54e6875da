"""The one exception tree. Each error says what happened, where, and what to do; the class gives the exit code.

HansaError                        1
├── InputError                    2   a person can mend it: a file, an option, a function of theirs
│   ├── ConfigError                   a key or value of a job file
│   ├── JobReferenceError             "file.py:name" does not lead to a job
│   ├── DataError                     a data source, a partition, an empty site
│   ├── TraceError (TypeError)        a federated computation is ill-typed: found before any site is contacted
│   │   └── FieldError (AttributeError)   a struct has no such field
│   ├── MissingExtraError             an optional library is not installed
│   └── VersionError                  a file was written by a newer Hansa
├── UpdateError                   1   one site's reply cannot be added; the round goes on without it
│   ├── SpecError                     wrong keys, dtype or shape
│   ├── NotFiniteError                an entry is inf or NaN
│   └── WeightError                   a weight is not finite, not positive, or over the cap
├── RunError                      1   the run cannot go on
│   ├── QuorumError                   too few sites answered a round
│   ├── ClientError                   a site's code raised; carries its traceback
│   └── ReplayError                   a resumed workflow asked for something else than it had asked for
├── StorageError                  5   the disk is full, or a file cannot be read or written
│   └── CheckpointError               a checkpoint is corrupt or half-written
├── RefusedError                  3   a policy or a right says no
│   └── IdentityError                 who asks cannot be believed; `code` tells which of its faults it is
├── UnreachableError              4   a server or site cannot be reached
└── Interrupted                 130   Ctrl-C; the run can be resumed
"""

from __future__ import annotations

from typing import ClassVar


class HansaError(Exception):
    """The root. `str(error)` is the message, then where it happened, then what to do about it.

    Coordinates (`job`, `run`, `round`, `site`, `task`, `path`), `got`, `expected` and `hint` are attributes as well.
    """

    exit_code: ClassVar[int] = 1
    code: str = "failed"  # the class's; an error with several faults sets its own

    def __init__(
        self,
        message: str = "",
        *,
        job: str | None = None,
        run: str | None = None,
        round: int | None = None,  # noqa: A002  the field's word; keyword-only, so nothing is shadowed for the caller
        site: str | None = None,
        task: str | None = None,
        path: str | None = None,
        got: object = None,
        expected: object = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.job, self.run, self.round, self.site, self.task = job, run, round, site, task
        self.path, self.got, self.expected, self.hint = path, got, expected, hint

    def __str__(self) -> str:
        parts = [self.message] if self.message else []
        where = [
            f"{name} {value!r}" if name in {"job", "run", "site", "task"} else f"{name} {value}"
            for name in ("job", "run", "round", "site", "task", "path")
            if (value := getattr(self, name)) is not None
        ]
        if where:
            parts.append("at " + ", ".join(where))
        if self.expected is not None:
            parts.append(f"expected {self.expected}")
        if self.got is not None:
            parts.append(f"got {self.got}")
        text = "; ".join(parts) or type(self).__name__
        return f"{text} ({self.hint.strip()})" if self.hint else text

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), dict(self.__dict__))


def _rebuild(kind: type[HansaError], state: dict[str, object]) -> HansaError:
    error = kind.__new__(kind)
    Exception.__init__(error, state.get("message", ""))
    error.__dict__.update(state)
    return error


class InputError(HansaError):
    exit_code = 2
    code = "input"


class ConfigError(InputError):
    code = "config"


class JobReferenceError(InputError):
    code = "job_reference"


class DataError(InputError):
    code = "data"


class TraceError(InputError, TypeError):
    code = "type"


class FieldError(TraceError, AttributeError):
    """A struct has no such field: also an AttributeError, so that `hasattr` answers."""


class MissingExtraError(InputError, ImportError):
    """An optional library is missing: `extra` is what to put in `pip install 'hansa[extra]'`."""

    code = "missing_extra"

    def __init__(self, library: str, *, extra: str) -> None:
        super().__init__(f"{library} is not installed", hint=f"pip install 'hansa[{extra}]'")
        self.extra = extra


class VersionError(InputError):
    code = "version"


class UpdateError(HansaError):
    code = "update"


class SpecError(UpdateError):
    code = "spec"


class NotFiniteError(UpdateError):
    code = "not_finite"


class WeightError(UpdateError):
    code = "weight"


class RunError(HansaError):
    code = "run"


class QuorumError(RunError):
    code = "quorum"


class ClientError(RunError):
    """A site's own code raised: `trace` is its traceback as text."""

    code = "client"

    def __init__(self, message: str = "", *, trace: str = "", **where: object) -> None:
        super().__init__(message, **where)  # type: ignore[arg-type]  # the coordinates of HansaError, passed through
        self.trace = trace


class ReplayError(RunError):
    code = "replay"


class StorageError(HansaError):
    exit_code = 5
    code = "storage"


class CheckpointError(StorageError):
    code = "checkpoint"


class RefusedError(HansaError):
    exit_code = 3
    code = "refused"


class IdentityError(RefusedError):
    """A key, certificate, token or proof is not good enough: `code` says why (expired, wrong_ca, revoked, ...)."""

    code = "identity"

    def __init__(self, code: str, message: str, **where: object) -> None:
        super().__init__(message, **where)  # type: ignore[arg-type]  # the coordinates of HansaError, passed through
        self.code = code


class UnreachableError(HansaError):
    exit_code = 4
    code = "unreachable"


class Interrupted(HansaError):
    exit_code = 130
    code = "interrupted"
