"""Learners from a framework's model, one module per framework."""
