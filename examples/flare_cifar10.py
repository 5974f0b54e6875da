"""An app of NVIDIA FLARE 2.0, flare/cifar10, under FedAvg, FedProx and FedOpt: accuracy of the global model round by round.

python flare_cifar10.py --data FOLDER   (or HANSA_DATA=FOLDER; examples/cifar10.py says what stands there)
python flare_cifar10.py --small         (seconds; without a folder on scikit-learn's 8x8 digits, which need no download)

The app runs as `hansa run --flare examples/flare/cifar10 --sites 8` runs it; only its two configurations differ from run to run.
"""

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

import hansa as hs
from hansa.compat.flare.job import Sites, job

APP = Path(__file__).parent / "flare" / "cifar10"
SITES = 8
FEDOPT = {"optimizer_args": {"path": "torch.optim.SGD", "args": {"lr": 1.0, "momentum": 0.5}, "config_type": "dict"}}


def variant(folder: Path, *, variables: Mapping[str, Any], fedopt: bool) -> Path:
    """The app with other values of its variables and, for FedOpt, another component at the server."""
    shutil.copytree(APP, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for side in ("server", "client"):
        path = folder / "config" / f"config_fed_{side}.json"
        document = json.loads(path.read_text(encoding="utf-8"))
        document |= {name: value for name, value in variables.items() if name in document}
        for part in document["components"]:
            if fedopt and part["id"] == "shareable_generator":
                part.update(name="PTFedOptModelShareableGenerator", args=FEDOPT)
        path.write_text(json.dumps(document), encoding="utf-8")
    return folder


def study(place: Path, *, small: bool, data: str | None) -> dict[str, list[float]]:
    """The test accuracy of the global model after each round, by algorithm."""
    common = {"ROUNDS": 2 if small else 15, "SMALL": small, "DATA": str(Path(data).resolve()) if data else ""}
    variants = {"FedAvg": (0.0, False), "FedProx, mu = 0.1": (0.1, False), "FedOpt, momentum 0.5": (0.0, True)}
    curves: dict[str, list[float]] = {}
    for name, (mu, fedopt) in variants.items():
        app = variant(place / name, variables={**common, "MU": mu}, fedopt=fedopt)
        workspace = place / f"{name}, workspace"
        result = hs.simulate(job(app, workspace=workspace), Sites.of(SITES), seed=0)
        (found,) = workspace.glob("server/**/test_accuracy.json")
        curve = curves[name] = json.loads(found.read_text(encoding="utf-8"))
        seconds = sum(record["seconds"] for record in result.metrics)
        print(f"{name:22} {curve[len(curve) // 2 - 1]:.3f} half-way, {curve[-1]:.3f} at the end  ({seconds:.0f} s)", flush=True)
    return curves


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--small", action="store_true", help="a size for a quick look")
    cli.add_argument("--data", default=os.environ.get("HANSA_DATA"), help="the folder with CIFAR-10")
    given = cli.parse_args()

    figure, axes = plt.subplots(figsize=(7.5, 4.5), dpi=120, layout="constrained")
    with tempfile.TemporaryDirectory() as place:
        for label, curve in study(Path(place), small=given.small, data=given.data).items():
            axes.plot(range(1, len(curve) + 1), curve, "--" if "Prox" in label else "-", marker="o", markersize=4, label=label)
    title = f"A FLARE 2.0 app, {SITES} sites with skewed labels, an epoch a round"
    axes.set(title=title, xlabel="round", ylabel="accuracy of the global model on test pictures")
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig("flare_cifar10.png", pil_kwargs={"optimize": True})
    print("-> flare_cifar10.png")


if __name__ == "__main__":
    main()
