"""Its programming interface."""
