"""Executors that call something simpler."""
