"""A digit classifier: an ordinary PyTorch script, and the four lines (marked) by which it joins a federation."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import hansa.client as hc  # 1


def net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def train(model: nn.Module, rows: TensorDataset, epochs: int = 1) -> float:
    optimizer, loss = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), torch.tensor(0.0)
    model.train()
    for _ in range(epochs):
        for x, y in DataLoader(rows, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]  # of torch
            optimizer.step()
    return loss.item()


@torch.no_grad()
def evaluate(model: nn.Module, rows: TensorDataset) -> dict[str, float]:
    model.eval()
    x, y = rows.tensors
    scores = model(x)
    right = (scores.argmax(1) == y).float().mean()
    return {"accuracy": right.item(), "loss": nn.functional.cross_entropy(scores, y).item()}


def tensors(rows: hc.Rows) -> TensorDataset:
    return TensorDataset(torch.from_numpy(rows.x).float(), torch.from_numpy(rows.y).long())


def main() -> None:
    data, model = hc.data(), net()  # what the site's loader gives: here arrays, elsewhere a path
    rows, held = tensors(data.train), tensors(data.valid)
    while task := hc.receive():  # 2
        model.load_state_dict(task.state_dict())  # 3
        if task.name == "evaluate":
            hc.send(metrics=evaluate(model, held), examples=len(held))
        else:
            loss = train(model, rows)
            hc.send(model.state_dict(), {"loss": loss}, examples=len(rows))  # 4


if __name__ == "__main__":
    main()
