"""Components that act on events."""
