"""Federated data sets: sources, partitions and splits."""
