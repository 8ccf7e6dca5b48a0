"""Files, devices, processes and the command line."""
