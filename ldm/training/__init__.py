"""The training loop and its methods."""
