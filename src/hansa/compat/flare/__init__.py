"""The classes that apps for NVIDIA FLARE 2.0 are written against, over our own tasks, executors and federations."""
