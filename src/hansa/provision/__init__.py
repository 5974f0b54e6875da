"""The project's own office: who takes part, and the start-up kits."""
