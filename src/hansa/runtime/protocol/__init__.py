"""What server and sites say to each other: messages and state machines without I/O."""
