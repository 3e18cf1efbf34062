"""What is served over HTTP besides webhooks and health."""
