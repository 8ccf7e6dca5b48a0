"""What can be trained, by name: each entry builds a Method for ldm.train from a RunConfig."""
