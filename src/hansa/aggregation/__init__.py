"""Aggregators: streaming, mergeable reductions over updates."""
