"""Where answers leave the pool."""
