"""A hospital's own loader, which stands in its kit and never leaves: here, its part of the UCI Heart Disease data."""

from hansa.core.protocols import Dataset
from hansa.data import datasets, partition

NAMES = ["cleveland", "hungary", "switzerland", "long-beach"]  # as the data set has its hospitals
hospitals = partition.column(datasets.heart(), split=(0.6, 0.15, 0.25))


def load(site: str) -> Dataset:
    return hospitals.load(NAMES.index(site))
