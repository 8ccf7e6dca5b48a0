"""The work of sample.py.

drawing_settings    DrawingSettings, from options, and to and from the text of a PNG
picture_folder      draws and saves the pictures and sheets of a folder
edit_settings       Edit: the way to change an image; free of PyTorch, for the parser
edited_pictures     opens the image to edit, and edits it a batch at a time
outpainting         fills a canvas around the image, window by window; can be stopped
image_editing       image to image, inversion and inpainting of pixels
latent_editing      the same of latents: SDEdit, DDIM inversion, RePaint
compositing         alphas, padding, and pasting without a seam
manifest            the CSV of a folder's pictures that CheXGenBench reads
word_maps           where each word is looked at: cross-attention, recorded as the U-Net runs
"""
