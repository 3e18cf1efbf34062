"""Structured prompts: guidance, directive and constraints, and a library of reasoning templates."""
