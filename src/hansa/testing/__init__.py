"""Fakes and fixtures for tests, shipped to users."""
