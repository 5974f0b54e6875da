"""Metrics, per site and federated."""
