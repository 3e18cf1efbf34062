"""Models: what answers messages."""
