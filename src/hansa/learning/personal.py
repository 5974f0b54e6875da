"""Layers that stay at the site: where they come from, where they are kept, and what of a model may cross.

Neither way does a personal leaf cross. A site's first values are those that the server has: the learner's, drawn from the job's
seed, or those of the job's `init`. From the first update on they are the site's own memory.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hansa.core import trees
from hansa.core.protocols import Dataset, Learner, Update
from hansa.core.rng import generator
from hansa.core.task import FLContext
from hansa.core.trees import Spec, Tree
from hansa.errors import ConfigError, RunError
from hansa.learning.on_site import SiteLearner
from hansa.learning.standardise import MEAN, SCALE, Standardised, moments_of, with_statistics

LOCAL = "local"  # the name of a site's own model in its memory


@dataclass(frozen=True)
class Personal:
    """The leaves of a learner's model whose paths match one of `patterns` are personal, all others are shared.

    >>> import numpy as np
    >>> from hansa.testing.fakes import ConstantLearner
    >>> layers = Personal(ConstantLearner({"body": np.ones(1), "head": np.ones(1)}), ("head",))
    >>> layers.shared({"body": np.ones(1), "head": np.ones(1)})
    {'body': array([1.])}

    Raises:
        ConfigError: one of the two feature statistics would stay at the site, and the other not.
    """

    learner: Learner | SiteLearner
    patterns: Sequence[str] = ()
    init: Tree | None = None
    keep_local: bool = False  # whether a site keeps its whole model as it is after each training

    def __post_init__(self) -> None:
        if isinstance(self.learner, Standardised) and self._matches(MEAN) != self._matches(SCALE):
            raise ConfigError("feature statistics stay together", path="personal", expected=f"both {MEAN} and {SCALE}, or neither")

    @property
    def own_statistics(self) -> bool:
        """Whether each site imputes and scales by the statistics of its own rows."""
        return isinstance(self.learner, Standardised) and self._matches(MEAN)

    def start(self, seed: int) -> Tree:
        """The model before the first round, without feature statistics: the same at the server and at every site."""
        model = self.learner.init(generator(seed, purpose="init"))
        if self.init is None or not self.patterns:
            return model
        given, _ = trees.split(self.init, self.patterns)
        Spec.of(trees.split(model, self.patterns)[0]).check(given, path="init")
        return trees.merge(model, given)

    def check(self, model: Tree, *, may_cover: bool) -> None:
        """Return if each pattern matches a leaf and, unless they `may_cover` the model, a leaf is shared.

        Raises:
            ConfigError: names the pattern, and the leaves there are.
        """
        paths = [path for path, _ in trees.leaves(model)]
        for i, pattern in enumerate(self.patterns):
            if not any(fnmatch.fnmatchcase(path, pattern) for path in [*paths, *((MEAN, SCALE) if self.own_statistics else ())]):
                raise ConfigError("no layer matches", path=f"personal[{i}]", got=repr(pattern), expected=f"one of {paths}")
        if not may_cover and all(self._matches(path) for path in paths):
            raise ConfigError("nothing is left to train together", path="personal", got=list(self.patterns), hint="use local_only")

    def check_init(self, before: Tree, init: Tree) -> None:
        """Return if the sites start from the personal leaves of `init`, as the server does.

        Raises:
            ConfigError: they cannot: what is given to a finished job does not reach them.
        """
        own, given = (trees.split(model, self.patterns)[0] for model in (before, init))
        if not trees.equal(own, given):
            hint = "give init= to the algorithm, so that the job carries it"
            raise ConfigError("a starting model's personal layers never cross to the sites", path=f"init/{min(own)}", hint=hint)

    def shared(self, model: Tree) -> Tree:
        """The leaves that cross between server and sites."""
        return trees.split(model, self.patterns)[1] if self.patterns else model

    def whole(self, shared: Tree, data: Dataset, ctx: FLContext) -> Tree:
        """The model that a site works with: the shared leaves with the site's own."""
        if not self.patterns:
            return shared
        own = memory_of(ctx).get("personal")
        if own is None:
            own, _ = trees.split(self.start(ctx.seed), self.patterns)
            if self.own_statistics:
                own = with_statistics(own, moments_of(data.part("train")))
        return trees.merge(shared, own)

    def keep(self, model: Tree, update: Update, ctx: FLContext) -> Tree:
        """The shared part of an update to `model`; the personal leaves after it, or all, go into the site's memory."""
        if self.keep_local:
            memory_of(ctx).put(LOCAL, trees.add(model, update.delta))
        if not self.patterns:
            return update.delta
        before, _ = trees.split(model, self.patterns)
        change, shared = trees.split(update.delta, self.patterns)
        memory_of(ctx).put("personal", trees.add(before, change))
        return shared

    def _matches(self, path: str) -> bool:
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in self.patterns)


def memory_of(ctx: FLContext) -> Any:
    """The site's memory.

    Raises:
        RunError: the task runs where sites have none.
    """
    if ctx.memory is None:
        raise RunError("this algorithm keeps trees at the site, and there is no site memory here", site=ctx.site or None)
    return ctx.memory
