"""What is done with the answers to a broadcast."""
