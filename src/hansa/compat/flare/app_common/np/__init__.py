"""Components for apps with one NumPy array."""
