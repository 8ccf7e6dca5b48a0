"""What is faster than the plain layer, and optional: the plain layer says what it computes."""
