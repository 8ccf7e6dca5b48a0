"""Pixels in [-1, 1] <-> image files.

image_files      reads PNG, TIFF, JPEG ..., writes PNG with its text; channels, squares, grids
bit_depths       which level is white; limits of size
dicom_files      DICOM read: levels through its window, and what it says, without the patient
dicom_writing    synthetic pictures as DICOM of no patient
"""
