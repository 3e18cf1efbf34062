"""Cassettes: model requests recorded once and answered from the file ever after."""
