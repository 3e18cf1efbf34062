"""HTTP: one aiohttp listener per host and port, who may call, health and metrics."""
