"""What components raise."""

from __future__ import annotations


class WorkflowError(Exception):
    """A workflow cannot go on: raised in a callback, the run ends."""


class UnsafeJobError(Exception):
    """A site does not want this job."""
