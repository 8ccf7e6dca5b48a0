"""Pixels in [-1, 1] <-> image files."""
