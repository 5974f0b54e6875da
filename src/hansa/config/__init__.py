"""job.toml to Job."""

from hansa.config.jobfile import JobFile, read

__all__ = ["JobFile", "read"]
