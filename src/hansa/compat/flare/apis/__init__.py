"""The interface of components, tasks and contexts."""
