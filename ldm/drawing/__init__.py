"""The work of sample.py."""
