"""From contributions to one result."""
