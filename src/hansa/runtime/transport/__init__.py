"""How messages and blobs move over HTTPS."""
