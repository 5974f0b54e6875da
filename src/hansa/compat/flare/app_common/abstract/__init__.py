"""What components of one's own are made from."""
