"""Components for models of PyTorch."""
