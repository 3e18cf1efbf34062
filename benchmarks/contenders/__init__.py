"""What is compared: one module per contender, each run in an interpreter that has it installed."""
