"""Measurements, on arrays and never on networks."""
