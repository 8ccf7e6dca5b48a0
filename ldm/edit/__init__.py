"""Changing an image that is there: image to image, inversion, inpainting, outpainting.

latents   what is done to latents, with the papers' equations
seam      masks, padding, and where new pixels meet old ones
repaint   the same for pictures: integers [H, W, C] in, integers of the same depth out
canvas    outpainting, window by window
options   the options of sample.py (imports nothing heavy)
album     the files: provenance, redrawing, resuming
"""
