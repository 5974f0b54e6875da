"""Hansa measured against named baselines, as ratios inside one run: `python -m benchmarks`."""
