"""Between models and task data."""
