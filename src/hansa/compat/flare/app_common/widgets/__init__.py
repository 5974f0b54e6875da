"""Components beside the workflow."""
