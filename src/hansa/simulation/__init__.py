"""Runs a job on simulated sites."""
