from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hansa.compat.flare.apis.dxo import DXO, DataKind  # noqa: E402  torch first
from hansa.compat.flare.apis.event_type import EventType  # noqa: E402
from hansa.compat.flare.apis.fl_context import FLContext  # noqa: E402
from hansa.compat.flare.app_common.abstract.model import make_model_learnable  # noqa: E402
from hansa.compat.flare.app_common.pt.pt_fed_utils import PTModelPersistenceFormatManager, feed_vars  # noqa: E402
from hansa.compat.flare.app_common.pt.pt_fedopt import PTFedOptModelShareableGenerator  # noqa: E402
from hansa.compat.flare.app_common.pt.pt_fedproxloss import PTFedProxLoss  # noqa: E402
from hansa.compat.flare.app_common.pt.pt_scaffold import PTScaffoldHelper, get_lr_values  # noqa: E402


def net(weight: float) -> Any:
    made = torch.nn.Linear(2, 1)
    with torch.no_grad():
        made.weight.fill_(weight)
        made.bias.fill_(0.0)
    return made


def test_the_proximal_term_is_half_mu_times_the_squared_distance_and_pulls_back() -> None:
    own, other = net(3.0), net(1.0)
    term = PTFedProxLoss(mu=0.5)(own, other)
    term.backward()
    assert (term.item(), own.weight.grad.tolist(), other.weight.grad) == (0.5 / 2 * 8.0, [[1.0, 1.0]], None)
    with pytest.raises(ValueError, match="mu"):
        PTFedProxLoss(-1.0)


def test_fedopt_takes_the_mean_difference_for_a_gradient_with_momentum() -> None:
    generator = PTFedOptModelShareableGenerator(
        {"path": "torch.optim.SGD", "args": {"lr": 0.5, "momentum": 0.9}},
        {"path": "torch.optim.lr_scheduler.StepLR", "args": {"step_size": 1, "gamma": 0.1}},
        net(1.0),
    )
    ctx = FLContext()
    generator.handle_event(EventType.START_RUN, ctx)
    ctx.set_prop("global_model", make_model_learnable({"weight": np.ones((1, 2), np.float32), "bias": np.zeros(1, np.float32)}, {}))
    diff = DXO(DataKind.WEIGHT_DIFF, {"weight": np.full((1, 2), 0.4, np.float32), "bias": np.ones(1, np.float32)}).to_shareable()
    first = generator.shareable_to_learnable(diff, ctx)["weights"]
    assert (first["weight"].tolist(), first["bias"].tolist()) == ([[pytest.approx(1.2)] * 2], [pytest.approx(0.5)])
    second = generator.shareable_to_learnable(diff, ctx)["weights"]  # lr 0.05, momentum 0.9 * 0.4 + 0.4
    assert second["weight"].tolist() == [[pytest.approx(1.2 + 0.05 * 0.76)] * 2]
    with pytest.raises(ValueError, match="names no class"):
        PTFedOptModelShareableGenerator({"path": "torch.optim.Sgd"}, None, net(1.0)).handle_event(EventType.START_RUN, ctx)


def test_scaffold_s_controls_follow_the_paper_s_second_option() -> None:
    helper, model, start = PTScaffoldHelper(), net(1.0), net(1.0)
    helper.init(model)
    helper.load_global_controls({"weight": np.full((1, 2), 0.2, np.float32), "bias": np.zeros(1, np.float32)})
    c_global, c_local = helper.get_params()
    with pytest.raises(ValueError, match="no step"):
        helper.terms_update(model, 0.1, c_global, c_local, start)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model.weight.sum().backward()  # a gradient of one
        optimizer.step()
        helper.model_update(model, get_lr_values(optimizer)[0], c_global, c_local)
    assert model.weight.tolist() == [[pytest.approx(1 - 2 * 0.1 * (1 + 0.2))] * 2]
    helper.terms_update(model, 0.1, c_global, c_local, start)
    assert helper.get_delta_controls()["weight"].tolist() == [[pytest.approx(0 - 0.2 + 0.24 / 0.2)] * 2]
    assert helper.get_params()[1]["weight"].tolist() == [[pytest.approx(1.0)] * 2]


def test_a_model_s_file_keeps_how_it_was_trained_and_takes_new_weights_in_its_shapes() -> None:
    manager = PTModelPersistenceFormatManager({"model": net(2.0).state_dict(), "train_conf": {"lr": 1}})
    learnable = manager.to_model_learnable(exclude_vars="bias")
    assert (list(learnable["weights"]), learnable["weights"]["weight"].tolist()) == (["weight"], [[2.0, 2.0]])
    manager.update(make_model_learnable({"weight": np.array([5.0, 6.0])}, {"round": 3}))
    stored = manager.to_persistence_dict()
    assert (stored["train_conf"], stored["meta_props"], stored["model"]["weight"].tolist()) == (
        {"lr": 1},
        {"round": 3},
        [[5.0, 6.0]],
    )
    model = net(0.0)
    feed_vars(model, {"weight": np.array([[1.0, 2.0]])})
    assert model.weight.tolist() == [[1.0, 2.0]]
    with pytest.raises(ValueError, match="shape"):
        feed_vars(model, {"weight": np.zeros(3)})
