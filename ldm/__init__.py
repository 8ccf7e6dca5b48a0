"""ldm: latent diffusion for radiology, written from scratch in PyTorch."""
