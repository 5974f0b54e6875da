"""The pictures: 10,000 of CIFAR-10's for training, dealt to eight sites by Dirichlet(0.3) labels, and 2,000 for tests."""

import functools

import numpy as np
import torch

from hansa.data import datasets, partition

SEED, SITES, ALPHA = 0, 8, 0.3


@functools.cache
def pictures(folder, small):
    """Rows for training and for tests. Small: 400 and 200, and without a folder scikit-learn's 8x8 digits."""
    if small and not folder:
        rows = some(datasets.digits(), 600)
        return rows.take(np.arange(400)), rows.take(np.arange(400, 600))
    rows = datasets.cifar10(folder=folder or None)
    train, test = (400, 200) if small else (10_000, 2_000)
    return some(rows.part("train"), train), some(rows.part("test"), test)


def some(rows, count):
    """That many rows, the same each time."""
    return rows.take(np.random.Generator(np.random.Philox(SEED)).permutation(len(rows))[:count])


@functools.cache
def dealt(folder, small):
    """The rows of all sites."""
    return partition.dirichlet(pictures(folder, small)[0], sites=SITES, alpha=ALPHA, min_rows=5, seed=SEED, split=(1, 0, 0))


def site_rows(folder, small, number):
    """What the site of this number has, from 0 on: pictures and labels."""
    return tensors(dealt(folder, small).load(number).part("train"))


def test_rows(folder, small):
    """The pictures for tests, with their labels."""
    return tensors(pictures(folder, small)[1])


def tensors(rows):
    """Pictures (n, channels, side, side), and labels."""
    x = torch.as_tensor(rows.x)
    return (x.reshape(*x.shape[:3], -1).movedim(-1, 1) - 0.5) / 0.25, torch.as_tensor(rows.y).reshape(-1).long()
