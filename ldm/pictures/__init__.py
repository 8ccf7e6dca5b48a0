"""Pixels in [-1, 1] <-> image files.

image_files    reads PNG, TIFF and JPEG, writes PNG with its text; channels, squares, grids
"""
