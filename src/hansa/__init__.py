"""Federated learning in one typed system."""
