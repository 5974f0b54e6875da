"""Proof that a record of events is whole."""
