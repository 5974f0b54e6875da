"""Cross-site evaluation: every model at every site, as a matrix. No rows leave a site, only metrics and what they sum up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hansa import codec, tensors
from hansa.core import gate, trees
from hansa.core.computation import Computation, federated_computation
from hansa.core.graph import LocalFunction
from hansa.core.intrinsics import federated_collect, federated_eval
from hansa.core.protocols import Federation, Learner, Metric
from hansa.core.round import Policy
from hansa.core.run import Round, Unmet, run
from hansa.core.task import LOCAL_MODEL, Expect, Failure, FLContext, Shareable
from hansa.core.trees import Spec, Tree
from hansa.core.types import CLIENTS, TREE
from hansa.core.workflow import Outcome
from hansa.errors import ConfigError, RunError, StorageError, UpdateError
from hansa.learning.metrics import evaluation, resolve
from hansa.learning.on_site import SiteLearner, reported
from hansa.learning.options import changed
from hansa.learning.personal import LOCAL, Personal, memory_of
from hansa.learning.standardise import MEAN, SCALE

Where = Literal["train", "valid", "test"]
_LOCAL = " (local)"  # after a site's name: its own model's
_LOST = Failure("lost", "the site gave no answer")
_SILENT = Failure("no_metrics", "the site told no metrics: it has no rows in this part, or its policy keeps metrics")


@dataclass(frozen=True)
class Matrix:
    """Every model at every site: what matrix.json holds.

    metrics: whether more is better, by metric. cells: metrics by model, then site. pooled: by model, over all sites' rows together.
    sha256: of each model's file. missing: model, site, code and message of each cell that is not there, and why; site None where
    there is no model to evaluate, since its site did not give it.
    """

    part: str
    metrics: Mapping[str, bool]
    models: Sequence[str]
    sites: Sequence[str]
    cells: Mapping[str, Mapping[str, Mapping[str, float]]]
    pooled: Mapping[str, Mapping[str, float]]
    sha256: Mapping[str, str]
    missing: Sequence[Mapping[str, str | None]]
    kind: str = "cross_site"


def cross_site(
    learner: Learner | SiteLearner,
    *,
    models: Mapping[str, Tree | str] | Sequence[str] | None = None,
    local: bool = False,
    part: Where = "test",
    metrics: Sequence[str | Metric] | None = None,
    personal: Sequence[str] = (),
    quorum: int | float = 1,
    deadline_s: float | None = None,
    attempts: int = 1,
    folder: Path | None = None,
) -> CrossSite:
    """Evaluate each model on one part of every site's rows.

    models: trees, or paths of safetensors files or run folders, by name; a list of paths is named by them. Relative ones start at
    `folder`. After a training in one `Sequence` its final and its best model come besides. local: also each site's own model as it
    was after its last training, which wants `keep_local=True` there, and at a deployed site a policy with `local_models = true`.
    personal: layers that each site has its own of, as in `fedper`: with them it completes the training's models; given and local
    ones are taken as they are. quorum, deadline_s, attempts: as in a round, for each model. A model that was trained with
    `standardise` brings its statistics.

    >>> from hansa.adapters.numpy import logistic
    >>> print(cross_site(logistic(features=4), local=True, metrics=["auc"]).about)
    cross-site evaluation on test rows by auc, numpy.logistic(features=4, lr=0.1, epochs=1, batch=32): each site's local model

    Raises:
        ConfigError: an option is out of its range, or there is no such model; names it.
    """
    if part not in ("train", "valid", "test"):
        raise ConfigError("no such part", path="part", expected="train, valid or test", got=repr(part))
    on_site = isinstance(learner, SiteLearner)
    if not (on_site or hasattr(learner, "evaluate")):
        raise ConfigError("not a Learner: it has no evaluate", path="learner", got=type(learner).__name__)
    named = learner.metrics if metrics is None else metrics
    measured = reported(named) if on_site else resolve(named)
    if not measured:
        raise ConfigError("nothing to measure", path="metrics", hint='name some, such as ["accuracy", "loss"]')
    given = _loaded(models or {}, folder or Path())
    policy = Policy(quorum=quorum, deadline_s=deadline_s, attempts=attempts)
    plain = evaluation(Personal(learner), part, measured)
    whose = evaluation(Personal(learner, tuple(personal)), part, measured, name=f"evaluate_own_{part}") if personal else plain
    what = [f"{name} {codec.digest(tree)[:12]}" for name, tree in given.items()] + (["each site's local model"] if local else [])
    by = ", ".join(metric.name for metric in measured)
    settings = ", ".join([repr(learner), *changed(policy), *([f"personal={list(personal)}"] if personal else [])])
    about = f"cross-site evaluation on {part} rows by {by}, {settings}" + (f": {', '.join(what)}" if what else "")
    paths = models.values() if isinstance(models, Mapping) else models or ()
    files = tuple(str(_file(folder or Path(), each)[0]) for each in paths if isinstance(each, str))
    return CrossSite(plain, whose, _submission() if local else None, tuple(measured), given, policy, part, about, files, learner)


def evaluate(
    learner: Learner | SiteLearner,
    *,
    model: Tree | str,
    part: Where = "test",
    metrics: Sequence[str | Metric] | None = None,
    quorum: int | float = 1,
    deadline_s: float | None = None,
    attempts: int = 1,
    folder: Path | None = None,
) -> CrossSite:
    """Evaluate one given model at every site: a matrix of one row, called `model`. The arguments are those of `cross_site`."""
    rules: dict[str, Any] = {"quorum": quorum, "deadline_s": deadline_s, "attempts": attempts}
    return cross_site(learner, models={"model": model}, part=part, metrics=metrics, folder=folder, **rules)


@dataclass(frozen=True)
class CrossSite:
    """The workflow of `cross_site`: one round a model, each a checkpoint. `files` are those that the models came from.

    `submit` asks a site for its local model; `whose` evaluates a `trained` model, which a site completes with layers of its own.
    """

    plain: Computation
    whose: Computation
    submit: Computation | None
    metrics: Sequence[Metric]
    models: Mapping[str, Tree]
    policy: Policy
    part: str
    about: str
    files: Sequence[str] = ()
    learner: Learner | SiteLearner | None = None
    trained: frozenset[str] = frozenset()

    @property
    def computations(self) -> Sequence[Computation]:
        """All computations whose client stages a site serves."""
        own = () if self.whose is self.plain else (self.whose,)
        return (self.plain, *own, *(() if self.submit is None else (self.submit,)))

    def rounds(self, sites: int) -> int:
        """How many models there are, with so many sites."""
        return len(self.models) + (0 if self.submit is None else sites)

    def after(self, results: Sequence[Any]) -> CrossSite:
        """The same, with the final and the best model of the last training among the results."""
        found: dict[str, Tree] = {}
        for each in results:
            if isinstance(each, Outcome):
                found = {"final": each.model, "best": each.best}  # both, even if they are the same: who reads rows finds them
        if taken := sorted(found.keys() & self.models.keys()):
            raise ConfigError("the training before has a model of this name", path=f"models/{taken[0]}", hint="call yours another")
        return replace(self, models={**self.models, **found}, trained=frozenset(found))

    def __call__(self, federation: Federation) -> Matrix:
        """The matrix; goes on after the last model that was done.

        Raises:
            ConfigError: there is no model to evaluate.
        """
        if not self.models:
            hint = "give models=, or put it behind a training: Sequence(fedavg(...), cross_site(...))"
            raise ConfigError("there is no model to evaluate", path="models", hint=hint)
        local = [] if self.submit is None else [f"{site}{_LOCAL}" for site in federation.sites]
        names = [*self.models, *local]
        saved = federation.restore()
        rows = [] if saved is None else [_Row(**row) for row in saved[2]["rows"]]
        for number, name in enumerate(names[len(rows) :], len(rows) + 1):
            row = self._row(federation, name, number)
            rows.append(row)
            owner = name.removesuffix(_LOCAL)
            lost = [each["site"] or owner for each in row.missing if each["code"] == _LOST.code]
            refused = [{**each, "site": each["site"] or owner} for each in row.missing if each["code"] != _LOST.code]
            federation.report({"round": number, "model": name, "refused": refused, "lost": lost})
            federation.checkpoint(number, {}, {"rows": [vars(each) for each in rows]})
        return self._matrix(rows, list(federation.sites))

    def _matrix(self, rows: Sequence[_Row], sites: Sequence[str]) -> Matrix:
        metrics = {metric.name: metric.higher_is_better for metric in self.metrics}

        def ordered(values: Mapping[str, float]) -> dict[str, float]:  # a checkpoint and the wire sort what they carry
            return {name: values[name] for name in metrics if name in values}

        return Matrix(
            part=self.part,
            metrics=metrics,
            models=[row.model for row in rows],
            sites=sites,
            cells={row.model: {site: ordered(row.cells[site]) for site in sites if site in row.cells} for row in rows},
            pooled={row.model: ordered(row.pooled) for row in rows},
            sha256={row.model: row.sha256 for row in rows if row.sha256},
            missing=[{key: each[key] for key in ("model", "site", "code", "message")} for row in rows for each in row.missing],
        )

    def _row(self, federation: Federation, name: str, number: int) -> _Row:
        if name in self.models:
            computation = self.whose if name in self.trained else self.plain
            return self._evaluated(federation, name, number, self.models[name], computation)
        given = self._submitted(federation, number - len(self.models) - 1, number)
        if isinstance(given, Failure):
            return _Row(name, "", {}, {}, [_missing(name, None, given)])
        return self._evaluated(federation, name, number, given, self.plain)

    def _evaluated(self, federation: Federation, name: str, number: int, model: Tree, computation: Computation) -> _Row:
        try:
            done = run(computation, federation, model, round=number, policy=self.policy)
        except Unmet as error:
            done = Round(None, refused=error.refused)
        values = {} if done.result is None else {metric.name: metric.value(done.result[metric.name]) for metric in self.metrics}
        why = {reply.site: reply.failure or _LOST for reply in (*done.lost, *done.refused)}
        answered = {federation.sites[slot] for slot in done.admitted}
        missing = [
            _missing(name, site, why.get(site, _SILENT if site in answered else _LOST))
            for site in federation.sites
            if site not in done.metrics
        ]
        cells = {site: dict(done.metrics[site]) for site in federation.sites if site in done.metrics}
        return _Row(name, codec.digest(model), cells, values, missing)

    def _submitted(self, federation: Federation, slot: int, number: int) -> Tree | Failure:
        """The site's own model, or why there is none."""
        if self.submit is None:
            return _LOST
        try:
            (model,) = run(self.submit, federation, round=number, slots=(slot,), policy=replace(self.policy, quorum=1)).result
            like = trees.split(next(iter(self.models.values())), (MEAN, SCALE))[1]
            gate.admit(Shareable(trees.split(model, (MEAN, SCALE))[1]), (Expect("", Spec.of(like)),))
            gate.admit(Shareable(model), (Expect(""),))
        except Unmet as error:
            return next((reply.failure for reply in error.refused if reply.failure), _LOST)
        except UpdateError as error:
            return Failure(error.code, str(error), error.path)
        return trees.copy(model)


@dataclass
class _Row:
    """One model's part of the matrix, as a checkpoint keeps it."""

    model: str
    sha256: str
    cells: dict[str, dict[str, float]]
    pooled: dict[str, float]
    missing: list[dict[str, str | None]]


def _missing(model: str, site: str | None, why: Failure) -> dict[str, str | None]:
    return {"model": model, "site": site, "code": why.code, "message": why.message}


def _submission() -> Computation:
    """The computation that asks a site for its own model."""

    def give(*, ctx: FLContext) -> Tree:
        kept: Tree | None = memory_of(ctx).get(LOCAL)
        if kept is None:
            hint = "train with keep_local=True in the same Sequence; a site that had no part in it has none"
            raise RunError("this site keeps no model of this run", site=ctx.site, hint=hint)
        return kept

    local = LocalFunction(give, LOCAL_MODEL, (), TREE, frozenset({"ctx"}), loops=True)

    def local_model() -> object:
        return federated_collect(federated_eval(local, CLIENTS))

    return federated_computation(local_model)


def _loaded(models: Mapping[str, Tree | str] | Sequence[str], folder: Path) -> dict[str, Tree]:
    """The models by name.

    Raises:
        ConfigError: one cannot be read, is not finite, or two have one name; names it.
    """
    named = models if isinstance(models, Mapping) else {str(each): each for each in models}
    found: dict[str, Tree] = {}
    for name, model in named.items():
        found[name] = model if isinstance(model, Mapping) else _read(_file(folder, model)[1], f"models/{name}")
        for path, leaf in trees.leaves(found[name]):
            if not gate.is_finite(np.asarray(leaf)):
                raise ConfigError("a model to evaluate is not finite", path=f"models/{name}: {path}")
    return found


def _file(folder: Path, model: str) -> tuple[Path, Path]:
    """A model's file as it was named, and where it is: of a run folder, its final model."""
    named = Path(model) / "model.safetensors" if (folder / model).is_dir() else Path(model)
    return named, folder / named


def _read(path: Path, key: str) -> Tree:
    try:
        return tensors.load_tree(path)[0]
    except StorageError as error:  # what a person named is wrong input, whatever is wrong with it
        hint = "give a .safetensors file, or the folder of a run that has ended"
        raise ConfigError(f"no model to evaluate: {error.message}", path=f"{key}: {path}", hint=hint) from error
