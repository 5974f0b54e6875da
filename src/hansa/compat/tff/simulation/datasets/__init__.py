"""`tff.simulation.datasets`: a tf.data data set for each client, over data at hand; nothing is downloaded."""

from hansa.compat.tff.simulation.datasets import emnist, shakespeare
from hansa.compat.tff.simulation.datasets.client_data import ClientData, TestClientData

__all__ = ["ClientData", "TestClientData", "emnist", "shakespeare"]
