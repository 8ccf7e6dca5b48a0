"""What can be trained; each method is built from a RunConfig and handed to ldm.train."""
