"""The task engine behind a controller."""
