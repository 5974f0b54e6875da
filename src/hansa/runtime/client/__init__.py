"""What runs at a site: the agent, its outbox and its workers."""
