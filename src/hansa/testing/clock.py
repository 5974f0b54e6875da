"""A clock for tests: time passes when the test says so."""

from __future__ import annotations

from hansa.simulation.clock import VirtualClock as FakeClock

__all__ = ["FakeClock"]
