"""A run's bundle, made and opened, and what the server and a run's own process say to each other."""
