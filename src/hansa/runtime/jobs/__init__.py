"""A run's life: its states, and what the server and a run's own process say to each other."""
