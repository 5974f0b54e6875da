"""The verbs of an admin session of FLARE 2.0 or Clara Train, over jobs."""
