"""job.toml to Job."""
