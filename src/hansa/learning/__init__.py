"""Learning algorithms, one file per paper."""
