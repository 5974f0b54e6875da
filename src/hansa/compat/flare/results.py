"""What a run folder is told of an app's run: a line for each round, the models, and the matrix of models and sites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hansa.compat.flare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from hansa.compat.flare.apis.fl_constant import ReservedKey, ReturnCode
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable
from hansa.compat.flare.app_common.abstract.model import ModelLearnable, ModelLearnableKey
from hansa.compat.flare.app_common.app_constant import AppConstants
from hansa.compat.flare.app_common.app_event_type import AppEventType
from hansa.compat.flare.app_common.filters.svt_privacy import EPSILON_SPENT
from hansa.core import trees
from hansa.core.protocols import Federation
from hansa.core.trees import Tree
from hansa.core.workflow import Outcome


class Results:
    """Hears the events of the server, as a component would."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation
        self._sites: dict[str, dict[str, float]] = {}
        self._weights: dict[str, float] = {}
        self._refused: list[dict[str, str]] = []
        self._rounds = self._best_round = 0
        self._best: Tree | None = None
        self._matrix: dict[str, dict[str, dict[str, float]]] = {}

    def heard(self, event_type: str, fl_ctx: FLContext) -> None:
        """Take down what an event says."""
        match event_type:
            case AppEventType.AFTER_CONTRIBUTION_ACCEPT:
                self._contribution(fl_ctx)
            case AppEventType.GLOBAL_BEST_MODEL_AVAILABLE:
                self._best, self._best_round = trees.copy(_weights(fl_ctx)), self._rounds
            case AppEventType.ROUND_DONE:
                self._round_done()
            case AppEventType.VALIDATION_RESULT_RECEIVED:
                self._validation(fl_ctx)

    def end(self, fl_ctx: FLContext) -> Any:
        """What came of the run: models of an app that trains, the matrix of one that validates, both of one that does both."""
        found: list[Any] = []
        model = _weights(fl_ctx)
        if model and self._rounds:
            best = self._best if self._best is not None else model
            found.append(Outcome(model, best, self._best_round or self._rounds, self._rounds, None))
        if self._matrix:
            rows = {site: dict(sorted(cells.items())) for site, cells in sorted(self._matrix.items())}
            found.append({"cross_site_val": rows})
        return tuple(found) if len(found) > 1 else found[0] if found else None

    def _contribution(self, fl_ctx: FLContext) -> None:
        result = fl_ctx.get_prop(AppConstants.TRAINING_RESULT)
        peer = fl_ctx.get_peer_context()
        site = str(peer.get_prop(ReservedKey.IDENTITY_NAME)) if peer is not None else "?"
        if not fl_ctx.get_prop(AppConstants.AGGREGATION_ACCEPTED):
            self._refused.append({"site": site, "code": "refused", "message": "the aggregator did not accept it"})
            return
        dxo = from_shareable(result) if isinstance(result, Shareable) and "DXO" in result else None
        if dxo is not None:
            spent = _numbers(dxo.get_meta_prop(EPSILON_SPENT), EPSILON_SPENT)
            self._sites[site] = _numbers(dxo.get_meta_prop(MetaKey.INITIAL_METRICS), MetaKey.INITIAL_METRICS) | spent
            steps = dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, 1.0)
            self._weights[site] = float(steps) if isinstance(steps, int | float | np.number) else 1.0

    def _round_done(self) -> None:
        self._rounds += 1
        names = dict.fromkeys(name for values in self._sites.values() for name in values)
        record = {
            "round": self._rounds,
            "global": {name: self._mean(name) for name in names},
            "sites": self._sites,
            "refused": self._refused,
            "lost": [],
        }
        self._federation.report(record)
        self._sites, self._weights, self._refused = {}, {}, []

    def _mean(self, name: str) -> float:
        """Of what sites say of the model that they were sent, weighted as their contributions are."""
        told = [(values[name], self._weights.get(site, 1.0)) for site, values in self._sites.items() if name in values]
        return sum(value * weight for value, weight in told) / sum(weight for _, weight in told)

    def _validation(self, fl_ctx: FLContext) -> None:
        result = fl_ctx.get_prop(AppConstants.VALIDATION_RESULT)
        if not isinstance(result, Shareable) or result.get_return_code() != ReturnCode.OK:
            return
        site, owner = fl_ctx.get_prop(AppConstants.DATA_CLIENT), fl_ctx.get_prop(AppConstants.MODEL_OWNER)
        dxo: DXO = from_shareable(result)
        if dxo.data_kind == DataKind.METRICS:
            self._matrix.setdefault(str(site), {})[str(owner)] = _numbers(dxo.data, "value")


def _weights(fl_ctx: FLContext) -> Tree:
    """The weights of the global model as a tree; empty where there is none of arrays."""
    model = fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)
    weights = model.get(ModelLearnableKey.WEIGHTS) if isinstance(model, ModelLearnable) else None
    if not isinstance(weights, Mapping):
        return {}
    arrays = {str(name): np.asarray(value) for name, value in weights.items()}
    return trees.unflatten({name: value for name, value in arrays.items() if value.dtype.kind in "biuf"})


def _numbers(told: object, name: str) -> dict[str, float]:
    """The numbers in what was told: one, or several by name."""
    given = told if isinstance(told, Mapping) else {name: told}
    numbers = {str(key): value for key, value in given.items() if isinstance(value, int | float | np.number)}
    return {key: float(value) for key, value in numbers.items() if np.isfinite(float(value))}
