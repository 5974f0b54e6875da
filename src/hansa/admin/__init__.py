"""The people's side of a federation: what they ask its server, and a whole federation on one machine."""
