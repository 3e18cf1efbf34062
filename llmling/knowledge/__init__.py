"""Text an agent may rely on."""
