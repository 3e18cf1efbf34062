"""What makes agents run by themselves."""
