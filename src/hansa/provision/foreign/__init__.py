"""Projects of Clara Train and NVIDIA FLARE, read as ours: every key is mapped or reported."""
