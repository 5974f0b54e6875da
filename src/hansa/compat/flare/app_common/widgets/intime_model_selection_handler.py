"""The model selection of later versions: the same component."""

from __future__ import annotations

from hansa.compat.flare.app_common.handlers.intime_model_selection_handler import IntimeModelSelectionHandler, IntimeModelSelector

__all__ = ["IntimeModelSelectionHandler", "IntimeModelSelector"]
