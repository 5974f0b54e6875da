"""Text, character by character: a recurrent network in torch, where each speaker of a play is a site.

python next_character.py --data FOLDER   (or HANSA_DATA=FOLDER; Shakespeare's speakers)
python next_character.py --small         (seconds; without a folder, a play of four who count and complain)

FOLDER holds tinyshakespeare.npz, or input.txt from https://github.com/karpathy/char-rnn/tree/master/data/tinyshakespeare.
"""

import argparse
import os

import numpy as np
import torch
from torch import nn

import hansa as hs
from hansa.adapters.torch import TorchLearner
from hansa.core.rng import generator
from hansa.data import partition, text
from hansa.data.rows import Rows
from hansa.learning import fedavg

SPEECHES = {  # what the four say, with each other's names; each is a voice of its own
    "Miller": "The wheel turns slow today, {name}. {k} sacks are ground, and {k} more are wet.",
    "Widow": "You promised me {k} loaves, {name}! I have waited since the bells rang {k}.",
    "Child": "Look, {name}, {k} geese on the roof! And one, and two, and there are {k} again!",
    "Monk": "Peace, {name}. He who counts {k} sorrows has forgotten {k} mercies and a song.",
}


def small_play() -> str:
    """Sixty speeches of each of four, in turn."""
    names = list(SPEECHES)
    lines = [
        f"{name}:\n" + words.format(name=names[(i + k) % 4], k=(7 * k + i) % 12 + 1)
        for k in range(60)
        for i, (name, words) in enumerate(SPEECHES.items(), 1)
    ]
    return "\n\n".join(lines)


class NextCharacter(nn.Module):
    """Codes (n, length) to logits (n, characters, length)."""

    def __init__(self, characters: int, units: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(characters, 16)
        self.read = nn.GRU(16, units, batch_first=True)
        self.say = nn.Linear(units, characters)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        states, _ = self.read(self.embed(codes))
        return torch.as_tensor(self.say(states)).transpose(1, 2)


def continued(model: nn.Module, alphabet: tuple[str, ...], start: str, length: int = 80) -> str:
    """The text that the model goes on with, always with the likeliest character."""
    codes = [alphabet.index(character) for character in start]
    with torch.no_grad():
        for _ in range(length):
            codes.append(int(model(torch.tensor([codes[-80:]]))[0, :, -1].argmax()))
    return "".join(alphabet[code] for code in codes)


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--small", action="store_true", help="a size for a quick look")
    cli.add_argument("--data", default=os.environ.get("HANSA_DATA"), help="the folder with the text")
    given = cli.parse_args()
    if given.data is None and given.small:
        said = {name: "".join(words) for name, words in text.speeches(small_play()).items()}
        rows = text.windows(said, length=40)
    else:
        rows = text.shakespeare(folder=given.data)
    names, counts = np.unique(rows.columns["site"], return_counts=True)
    kept = np.isin(rows.columns["site"], names[counts >= 20])  # who has little to say cannot be tested apart
    rows = Rows(rows.x[kept], rows.y[kept], {"site": rows.columns["site"][kept]}, classes=rows.classes)
    sites = partition.column(rows, split=(0.8, 0, 0.2))
    print(f"{len(sites.sites)} speakers, {rows.x.size} characters of {len(rows.classes)} kinds")

    rounds, units = (3, 32) if given.small else (20, 128)

    def net() -> nn.Module:
        return NextCharacter(len(rows.classes), units)

    learner = TorchLearner(net, loss=nn.functional.cross_entropy, optimizer="adam", lr=0.01, epochs=1, batch=16)
    job = hs.Job("next-character", fedavg(learner, rounds=rounds, cohort=10, metrics=["loss"], evaluate_sites="none"), data="text")
    result = hs.simulate(job, {"text": sites}, seed=0)
    for name, weights in (("before", learner.init(generator(0))), ("after", result.model)):
        model = net()
        model.load_state_dict({path: torch.from_numpy(np.array(leaf)) for path, leaf in weights.items()})
        loss = hs.evaluate(job, weights, {"text": sites}, part="test").pooled["loss"]
        print(f"{name:6} {rounds} rounds: test loss {loss:.3f}, {continued(model, rows.classes, 'And ')!r}")


if __name__ == "__main__":
    main()
