"""TorchLearner: a user's torch module as pure functions over Trees."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from hansa.adapters.settings import RuleName, Scores, metric_names, refusing, rule_name
from hansa.adapters.torch import batched, leaves, rows
from hansa.adapters.torch.held import Held
from hansa.adapters.torch.loop import train
from hansa.adapters.torch.objective import Loss, Objective, name
from hansa.adapters.torch.rules import Chosen, Factory
from hansa.adapters.training import Plan, epochs_of, training
from hansa.core.protocols import Dataset, Evaluation, FitConfig, Update
from hansa.core.task import Signal
from hansa.core.trees import Array, Tree
from hansa.core.types import TensorType
from hansa.errors import ConfigError

Device: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]
OwnFit: TypeAlias = Callable[[nn.Module, Dataset, FitConfig], Any]  # nothing, a loss, or a mapping: checked when it returns

_ROWS = 1024  # rows of one forward pass when no gradient is taken
_TERMS = ("proximal", "correction", "clip")  # of FitConfig: what an algorithm adds to a step
_DEFAULTS: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "device": "auto", "fit": None, "threads": 1}


class TorchLearner:
    """A learner from a function that builds a torch module. It holds settings, never weights.

    A model is the module's `state_dict` as arrays under torch's own names ("1.weight"), buffers included, each in its own
    dtype (bfloat16 by ml_dtypes), so that `module.load_state_dict(safetensors.torch.load_file(path))` takes what a run
    saves. Tied weights stand under each of their names.

    model: builds the module; called once in a process, and again for each fit by a loop of the user's own. One module is kept and
        all its leaves are loaded for every call; what it keeps elsewhere (a plain Python attribute) is its own affair.
    loss: (output, y) -> scalar mean. It decides, unless `scores` and `metrics` say otherwise, how outputs are read:
        cross_entropy gives softmax scores, binary_cross_entropy_with_logits sigmoid, others the output itself.
    lr, epochs or steps, batch: local training, where the algorithm asks for nothing else; one epoch, or all rows with batch 0.
    optimizer: "sgd" (with momentum), "adam", "adamw", or a function of (params, lr) that returns a torch optimizer.
    fit: the user's own loop, `fit(module, train_rows, config)`; trains the loaded module in place, with `config` filled in and
        torch's generators seeded. It may return nothing, the loss, or a dict with any of "loss", "steps", "examples".
    honours: which of "proximal", "correction" and "clip" the user's loop takes from `config` and does; an algorithm that asks for
        another is refused, so that FedProx is never a FedAvg in silence.
    device: "auto" is cuda, else mps, else cpu.
    threads: torch's intra-op threads while it works (restored after); more than one and results differ from run to run.

    Floats of x become the model's dtype (float32), and so do uint8 and booleans, with values unchanged; other integers become
    int64 (token ids). y becomes int64 for class labels and float for binary and regression losses; under a loss of your own
    y's kind decides. An update with NaN is returned as it is: the gate refuses it by name. One thread at a time.

    >>> net = lambda: nn.Linear(2, 1)
    >>> TorchLearner(net, loss=nn.functional.mse_loss, lr=0.5, batch=0)
    TorchLearner(<lambda>, loss=mse_loss, lr=0.5, epochs=1, batch=0)

    Raises:
        ConfigError: a setting that cannot be; names it.
    """

    def __init__(
        self,
        model: Callable[[], nn.Module],
        *,
        loss: Loss,
        lr: float = 0.1,
        epochs: int | None = None,
        steps: int | None = None,
        batch: int = 32,
        optimizer: RuleName | Factory = "sgd",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        fit: OwnFit | None = None,
        honours: Sequence[str] = (),
        metrics: Sequence[str] | None = None,
        scores: Scores | None = None,
        device: Device = "auto",
        threads: int | None = 1,
    ) -> None:
        if isinstance(model, nn.Module) or not callable(model):
            raise ConfigError("a learner takes a function that builds the model", path="model", got=type(model).__name__)
        if device not in ("auto", "cpu", "cuda", "mps"):
            raise ConfigError("no such device", path="device", got=repr(device), expected="auto, cpu, cuda or mps")
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise ConfigError("not a number of threads", path="threads", got=repr(threads), expected="1 or more, or None")
        if fit is not None and not callable(fit):
            raise ConfigError("your own loop is a function", path="fit", got=repr(fit), expected="fit(module, rows, config)")
        self._model, self._fit, self._device, self._threads = model, fit, device, threads
        self._honours = _honoured(honours, fit)
        self._plan = Plan.given(lr=lr, epochs=epochs, steps=steps, batch=batch)
        self._optimizer = Chosen(optimizer, momentum, weight_decay)
        self._objective = Objective.of(loss, scores=scores, metrics=metric_names(metrics))
        self._text = self._describe(scores, metrics)
        self._asked: tuple[FitConfig, Plan] | None = None
        self._kept: Held | None = None
        self._transient: list[tuple[Tensor, Tensor]] = []

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that are reported when the job names none."""
        return self._objective.metrics

    @property
    def rule(self) -> str | None:
        """How a step moves the weights: "sgd", "momentum", "adam" or "adamw"; None for a loop or an optimizer of the user's own."""
        return None if self._fit is not None else rule_name(self._optimizer.optimizer, self._optimizer.momentum)

    def accepts(self, x: TensorType, y: TensorType) -> None:
        """Return if rows of these types can be trained on: the model and the loss take fake tensors of them, without data.

        Raises:
            DataError: they cannot; names the array, and says what torch says.
        """
        from torch._subclasses.fake_tensor import FakeTensorMode

        sizes = [(kind.shape or (None,))[1:] for kind in (x, y)]
        if None in (*sizes[0], *sizes[1]):
            return
        rows_of = [np.zeros((2, *(n or 0 for n in size)), kind.dtype) for kind, size in zip((x, y), sizes, strict=True)]
        with warnings.catch_warnings(action="ignore"), FakeTensorMode(allow_non_fake_inputs=True):
            module = self._model()
            floats = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
            inputs = torch.zeros(rows_of[0].shape, dtype=rows.input_dtype(rows_of[0], floats))
            targets = torch.zeros(rows_of[1].shape, dtype=rows.target_dtype(rows_of[1], floats, self._objective.targets))
            with refusing("x", "rows that the model takes", x):
                output = module(inputs)
            with refusing("y", "targets that the loss takes", y):
                self._objective(output, targets)

    def init(self, rng: np.random.Generator) -> Tree:
        """The weights that the user's function gives when torch is seeded from `rng`; torch's own generators stay as they are."""
        with leaves.threads(self._threads):
            return leaves.tree(self._build(int(rng.integers(1 << 63)), torch.device("cpu")))

    def fit(self, model: Tree, data: Dataset, config: FitConfig, *, rng: np.random.Generator, abort: Signal) -> Update:
        """Local training on the data's training part.

        Raises:
            DataError: no rows, or rows that the model or the loss cannot take.
            SpecError: the tree is not one of this model.
            Aborted: `abort` was triggered.
        """
        if self._asked is None or self._asked[0] is not config:  # the sites of a round are asked with one record
            self._asked = config, self._plan.under(config)
        plan, part, device = self._asked[1], training(data), _device(self._device)
        with leaves.threads(self._threads), leaves.seeded(_seed(rng), device), leaves.gradients():
            abort.check()
            if self._fit is not None:
                return self._own_fit(self._fit, model, part, plan, device)
            held, objective = self._module(model, device), self._objective.on(device)
            held.module.train()
            steps = plan.count(len(part))
            x_y = rows.Rows(part.x, part.y, floats=held.floating(), device=device, targets=objective.targets)
            order = epochs_of(len(part), batch=plan.batch, steps=steps, rng=rng)
            batches = x_y.batches(order, size=plan.batch)
            loss = train(held, objective, batches, plan, optimizer=self._optimizer, abort=abort)
            return Update(held.delta(model), len(part), steps, plan.lr, loss)

    def fit_many(
        self,
        models: Sequence[Tree],
        datasets: Sequence[Dataset],
        configs: Sequence[FitConfig],
        *,
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[Update]:
        """Local training of many clients in one call, by torch.func: what `fit` gives each, within 1e-5 relative.

        Raises:
            ConfigError: it cannot be batched, and why: a loop or an optimizer of one's own, dropout, batch normalisation, buffers
                that training changes, a loss without reduction="none", configs that differ in more than lr and correction.
        """
        if self._fit is not None:
            raise ConfigError("a loop of your own cannot train batched clients", path="fit", hint="the loop engine takes any")
        plans, parts = [self._plan.under(config) for config in configs], [training(data) for data in datasets]
        if not models:
            return []
        device = _device(self._device)
        with leaves.threads(self._threads), leaves.seeded(_seed(rngs[0]), device):
            held, objective = self._module(models[0], device), self._objective.on(device)
            held.module.train()
            return batched.fit(held, objective, self._optimizer, models, parts, plans, rngs=rngs, device=device)

    def evaluate(self, model: Tree, data: Dataset) -> Evaluation:
        """The score of each row, and the mean loss over the rows.

        Raises:
            DataError: rows that the model or the loss cannot take.
            SpecError: the tree is not one of this model.
        """
        x, y = data.x, data.y
        with self._reading(model) as (held, device):
            objective, total, scores = self._objective.on(device), 0.0, []
            x_y = rows.Rows(x, y, floats=held.floating(), device=device, targets=objective.targets)
            for index in _slices(len(x)):
                inputs, targets = x_y.batch(index)
                output = held.module(inputs)
                scores.append(objective.scored(output, column=y.ndim > 1))
                total += float(objective(output, targets)) * len(index) if len(index) else 0.0
            return Evaluation(np.concatenate(scores), total / len(x) if len(x) else math.nan)

    def predict(self, model: Tree, x: Array) -> Array:
        """The score of each row of x: what `evaluate` gives."""
        with self._reading(model) as (held, device):
            inputs = rows.Rows(x, None, floats=held.floating(), device=device, targets=self._objective.targets)
            outputs = (held.module(inputs.batch(index)[0]) for index in _slices(len(x)))
            return np.concatenate([self._objective.scored(output, column=False) for output in outputs])

    def to_module(self, model: Tree) -> nn.Module:
        """The user's own module with these weights: a new one, on the learner's device, in eval mode.

        Raises:
            SpecError: the tree is not one of this model.
        """
        device = _device(self._device)
        module = self._build(0, device)
        Held(module).load(model)
        return module.eval()

    def __repr__(self) -> str:
        return self._text

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None, "_transient": [], "_asked": None}

    def _own_fit(self, fit: OwnFit, model: Tree, part: Dataset, plan: Plan, device: torch.device) -> Update:
        for asked in _TERMS:
            if getattr(plan, asked) not in (None, 0.0) and asked not in self._honours:
                hint = f"do it in your loop, by config.{asked}, and say honours=({asked!r},); the built-in loop does it"
                raise ConfigError(
                    f"the algorithm asks for {asked}, and your own loop does not say that it does it", path=asked, hint=hint
                )
        module = self._build(0, device)  # a new one: what the user's loop hangs on it, or freezes, must not reach the next client
        held = Held(module)
        held.load(model)
        said = _said(fit(module.train(), part, plan.config()))
        steps, examples = said.get("steps", plan.count(len(part))), said.get("examples", len(part))
        return Update(held.delta(model), int(examples), int(steps), plan.lr, _number(said.get("loss", math.nan)))

    def _build(self, seed: int, device: torch.device) -> nn.Module:
        with leaves.seeded(seed, torch.device("cpu")):
            module = self._model()
        if not isinstance(module, nn.Module):
            raise ConfigError("the model's function must return a torch module", path="model", got=type(module).__name__)
        leaves.require_leaves(module)
        return module.to(device)

    def _module(self, model: Tree, device: torch.device) -> Held:
        if self._kept is None:
            self._kept = Held(self._build(0, device))
            self._transient = leaves.transient(self._kept.module)
        self._kept.load(model)
        for buffer, at_first in self._transient:
            buffer.copy_(at_first)
        return self._kept

    @contextmanager
    def _reading(self, model: Tree) -> Iterator[tuple[Held, torch.device]]:
        device = _device(self._device)
        with leaves.threads(self._threads), leaves.seeded(0, device), torch.no_grad():
            held = self._module(model, device)
            held.module.eval()
            yield held, device

    def _describe(self, scores: Scores | None, metrics: Sequence[str] | None) -> str:
        plan, chosen = self._plan, self._optimizer
        length = f"epochs={plan.epochs}" if plan.steps is None else f"steps={plan.steps}"
        parts = [name(self._model), f"loss={name(self._objective.loss)}", f"lr={float(plan.lr)!r}", length, f"batch={plan.batch}"]
        settings = {
            "optimizer": chosen.optimizer,
            "momentum": chosen.momentum,
            "weight_decay": chosen.weight_decay,
            "fit": self._fit,
            "device": self._device,
            "threads": self._threads,
        }
        parts += [f"{key}={name(v) if callable(v) else v}" for key, v in settings.items() if v != _DEFAULTS[key]]
        parts += [f"honours={self._honours}"] if self._honours else []
        parts += [f"scores={scores}"] if scores else []
        parts += [f"metrics={tuple(metrics)}"] if metrics is not None else []
        return f"TorchLearner({', '.join(parts)})"


def _seed(rng: np.random.Generator) -> int:
    """What seeds the model's own draws (dropout): of `rng`, which is left as it was for the batches."""
    # One draw, taken back: a jumped stream of its own costs as much as a small step. Torch makes quite other numbers of it.
    stream = rng.bit_generator.state
    seed = int(rng.integers(1 << 63))
    rng.bit_generator.state = stream
    return seed


@functools.cache
def _device(asked: Device) -> torch.device:
    """What the name stands for on this machine.

    Raises:
        ConfigError: there is none here.
    """
    found = [kind for kind, here in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())) if here]
    if asked == "auto":
        return torch.device(found[0] if found else "cpu")
    if asked != "cpu" and asked not in found:
        raise ConfigError("there is no such device here", path="device", got=asked, expected=" or ".join([*found, "cpu"]))
    return torch.device(asked)


def _slices(n: int) -> Iterator[Array]:
    """Row numbers, some at a time; once none, when there are none, so that scores have their shape."""
    for start in range(0, max(n, 1), _ROWS):
        yield np.arange(start, min(start + _ROWS, n))


def _said(result: Any) -> Mapping[str, Any]:
    """What a user's own loop reported."""
    if result is None:
        return {}
    if isinstance(result, Mapping):
        if unknown := result.keys() - {"loss", "steps", "examples"}:
            raise ConfigError(
                "your own loop reported an unknown key", path=f"fit/{min(unknown)}", expected="loss, steps or examples"
            )
        return result
    if isinstance(result, int | float | np.number) or (isinstance(result, Tensor) and result.numel() == 1):
        return {"loss": _number(result)}
    raise ConfigError(
        "your own loop returned something else", path="fit", got=type(result).__name__, expected="None, a loss or a dict"
    )


def _number(value: Any) -> float:
    return float(value.detach() if isinstance(value, Tensor) else value)  # a loss may still hang on its graph


def _honoured(names: Sequence[str], fit: OwnFit | None) -> tuple[str, ...]:
    """The names in their order, each known.

    Raises:
        ConfigError: one is not, or there is no loop of the user's own that could honour them.
    """
    if isinstance(names, str) or not set(names) <= set(_TERMS):
        raise ConfigError("no such term", path="honours", got=repr(names), expected=f"some of {', '.join(_TERMS)}")
    if names and fit is None:
        raise ConfigError("the built-in loop honours all", path="honours", got=repr(names), hint="it is for fit=")
    return tuple(term for term in _TERMS if term in names)
