"""The engine for several machines: events in NATS JetStream."""
