"""Components that apps are put together from."""
