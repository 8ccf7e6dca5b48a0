"""How fast, and how good, measured: `python -m benchmarks`, and scripts that run by themselves."""
