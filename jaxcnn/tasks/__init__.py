"""What a model is scored by: one task a file."""
