"""How requests are written for each provider, as litellm knows it; most are written in one way."""
