"""The narrow waist: trees, types, tasks, computations and the round engine, without I/O or any framework."""
