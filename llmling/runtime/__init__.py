"""What runs: it knows the protocols and none of their implementations."""
