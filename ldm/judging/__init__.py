"""Images -> features -> findings."""
