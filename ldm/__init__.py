"""ldm: latent diffusion for radiology, written from scratch in PyTorch."""

__version__ = "0.1.0"  # setup.cfg reads it from here
