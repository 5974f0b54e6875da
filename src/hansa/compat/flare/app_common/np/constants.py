"""Names of the NumPy components."""

from __future__ import annotations


class NPConstants:
    """The one array of a model, and the files of models."""

    NUMPY_KEY = "numpy_key"
    NUMPY = "numpy"
