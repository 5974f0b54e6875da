"""A real federation: server, sites and what they say to each other."""
