"""Filters on task data and results."""
