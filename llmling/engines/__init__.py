"""What keeps events and hands their deliveries out: SQLite (default) and memory."""
