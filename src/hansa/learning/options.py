"""Options that every algorithm takes, checked when the algorithm is made."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, Literal, TypedDict

import numpy as np

from hansa import codec, registry
from hansa.core.protocols import Aggregator, Dataset, Metric
from hansa.core.round import is_real
from hansa.core.trees import Tree
from hansa.errors import ConfigError
from hansa.learning import schedules
from hansa.learning.composed import composes, named
from hansa.learning.schedules import Schedule
from hansa.templates import AggregationFactory, AggregationProcess


class Options(TypedDict, total=False):
    """What every algorithm takes besides its own settings.

    client_lr: step size at the clients, a number or schedule of the finished rounds. epochs or steps, batch: replace the learner's.
    clip: L2 norm of a step's gradient. weighting: of updates, by training examples or uniform. weight_cap: the largest weight a
    site may claim. personal: path patterns of layers that stay at the site. keep_local: each site keeps its model as it is after
    its training, for `cross_site(local=True)`. standardise: impute and scale features by a federated statistics round. quorum,
    deadline_s, over_select, attempts: see core.round.Policy. metrics: names or Metric objects (None: the learner's).
    evaluate_every, evaluate_sites, monitor, patience: see learning.rounds.Watch. aggregator: instead of the algorithm's own, a
    streaming one or one of hansa.aggregators, there by name as well. test:
    data held at the server, scored after each round (`test_*` metrics). init: a model to start from.
    """

    client_lr: float | Schedule | Mapping[str, Any] | None
    epochs: int | None
    steps: int | None
    batch: int | None
    clip: float | None
    weighting: Literal["examples", "uniform"]
    weight_cap: float
    personal: Sequence[str]
    keep_local: bool
    standardise: bool
    quorum: int | float
    deadline_s: float | None
    over_select: float
    attempts: int
    metrics: Sequence[str | Metric] | None
    evaluate_every: int
    evaluate_sites: Literal["cohort", "all", "none"]
    monitor: str | None
    patience: int | None
    aggregator: Aggregator[Any] | AggregationProcess | AggregationFactory | str | Mapping[str, Any]
    test: Dataset | Callable[[], Dataset] | None
    init: Tree | None


def check(options: Options, *, algorithm: Callable[..., Any] | None = None, fixed: Mapping[str, Any] | None = None) -> None:
    """Return if the options can be used. `algorithm` adds its own arguments to the names that a typo is compared with; what is
    in `fixed` the algorithm has decided, so nobody else may.

    >>> check({"epoch": 2})
    Traceback (most recent call last):
        ...
    hansa.errors.ConfigError: no algorithm takes 'epoch'; at path epoch (did you mean 'epochs'?)

    Raises:
        ConfigError: an option is unknown, out of its range, or not this algorithm's to take; names it.
    """
    own = [] if algorithm is None else [name for name in inspect.signature(algorithm).parameters if name != "options"]
    who = "the algorithm" if algorithm is None else algorithm.__name__
    for name, value in options.items():
        if name not in Options.__annotations__:
            known = sorted({*Options.__annotations__, *own})
            takes_no = "no algorithm takes" if algorithm is None else f"{who} takes no"
            raise ConfigError(f"{takes_no} {name!r}", path=name, hint=registry.nearest(name, known))
        if fixed and name in fixed and value is not None:
            raise ConfigError(f"{who} never takes {name!r}", path=name, got=value, hint=f"it is always {fixed[name]!r} here")
    if options.get("epochs") is not None and options.get("steps") is not None:
        raise ConfigError("give epochs or steps", path="steps", got=f"epochs={options['epochs']}, steps={options['steps']}")
    _check_training(options)
    _check_weights(options)
    _check_models(options)


def check_on_site(options: Options) -> None:
    """Return if a learner that reads and evaluates a site's data by itself can serve the options.

    Raises:
        ConfigError: one asks for rows or scores that Hansa does not see; names it.
    """
    for name, hint in (
        ("standardise", "scale the features in the script"),
        ("test", "the sites evaluate: name the metrics that the script reports"),
    ):
        if options.get(name):
            raise ConfigError(f"{name!r} needs the rows, which the script reads by itself", path=name, hint=hint)


def _check_training(options: Options) -> None:
    given: Mapping[str, Any] = options
    for name, least in (("epochs", 1), ("steps", 1), ("batch", 0)):
        value = given.get(name)
        if value is not None and (type(value) is not int or value < least):
            raise ConfigError(f"{name} is a whole number", path=name, expected=f"at least {least}", got=repr(value))
    clip = given.get("clip")
    if clip is not None and not (is_real(clip) and clip > 0):
        raise ConfigError("clip is the norm of a gradient", path="clip", expected="a finite number > 0", got=repr(clip))
    if given.get("client_lr") is not None:
        schedules.of(given["client_lr"], path="client_lr")


def _check_weights(options: Options) -> None:
    given: Mapping[str, Any] = options
    if given.get("weighting", "examples") not in ("examples", "uniform"):
        raise ConfigError("no such weighting", path="weighting", expected="examples or uniform", got=repr(given["weighting"]))
    cap = given.get("weight_cap", math.inf)
    if not (cap == math.inf or (is_real(cap) and cap > 0)):
        raise ConfigError("not the largest weight", path="weight_cap", expected="a number > 0", got=repr(cap))
    aggregator = named(given.get("aggregator"))
    streaming = all(hasattr(aggregator, name) for name in ("zero", "add", "merge", "finish"))
    if aggregator is not None and not (streaming or composes(aggregator)):
        expected = (
            "zero, add, merge, finish; or an AggregationProcess, a WeightedAggregationFactory or an UnweightedAggregationFactory"
        )
        raise ConfigError("not an Aggregator", path="aggregator", got=repr(aggregator), expected=expected)


def _check_models(options: Options) -> None:
    given: Mapping[str, Any] = options
    personal = given.get("personal", ())
    if not isinstance(personal, list | tuple) or not all(isinstance(p, str) and p for p in personal):
        raise ConfigError("personal is a list of path patterns", path="personal", expected='such as ["head.*"]', got=repr(personal))
    if personal and given.get("test") is not None:
        hint = "use the sites' own metrics, or leave no layer at the sites"
        raise ConfigError("the server has no whole model to score: layers stay at the sites", path="test", hint=hint)
    test = given.get("test")
    if not (test is None or isinstance(test, Dataset) or callable(test)):
        raise ConfigError(
            "not a data set", path="test", expected="a Dataset, or a function that gives one", got=type(test).__name__
        )
    for name in ("standardise", "keep_local"):
        if not isinstance(given.get(name, False), bool):
            raise ConfigError(f"{name} is a yes or no", path=name, expected="True or False", got=repr(given[name]))
    metrics = given.get("metrics")
    if not (metrics is None or isinstance(metrics, list | tuple)):
        raise ConfigError("metrics is a list", path="metrics", expected='such as ["accuracy"]', got=repr(metrics))
    init = given.get("init")
    if not (init is None or isinstance(init, Mapping)):
        raise ConfigError("not a model", path="init", expected="a Tree", got=type(init).__name__)


def changed(record: Any, *, but: Sequence[str] = ()) -> list[str]:
    """`name=value` of each field of a dataclass that is not at its default: what a plan prints.

    >>> from hansa.core.protocols import FitConfig
    >>> changed(FitConfig(clip=1.0, batch=0))
    ['batch=0', 'clip=1.0']
    """
    shown = []
    for field in fields(record):
        value = getattr(record, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if value != default and field.name not in but:
            shown.append(f"{field.name}={value!r}")
    return shown


def given_data(options: Options) -> list[str]:
    """What an algorithm was given besides settings, as a plan prints it: trees and rows by the first 12 digits of their SHA-256."""
    shown = []
    if (metrics := options.get("metrics")) is not None:
        shown.append(f"metrics={list(metrics)}")
    if (test := options.get("test")) is not None:
        rows = {"x": np.asarray(test.x), "y": np.asarray(test.y)} if isinstance(test, Dataset) else None
        shown.append(f"test={test!r}" if rows is None else f"tested on given rows {digest_of(rows)}")
    if (init := options.get("init")) is not None:
        shown.append(f"from a given model {digest_of(init)}")
    return shown


def digest_of(tree: Tree) -> str:
    """The first 12 digits of a tree's SHA-256, as plans print it."""
    return codec.digest(tree)[:12]
