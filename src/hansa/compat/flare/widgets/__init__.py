"""What components beside the workflow are made from."""
