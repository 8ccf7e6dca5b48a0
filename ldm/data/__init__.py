"""Images and texts with known findings, for training and for measuring.

phantom            computed chest radiographs of known truth
data_config        the table `data` of a training run
datasets           files and phantoms to train on, their pixels and latents cached, and batches
augmentation       random changes of training images
image_sets         files and phantoms to measure; rows of a folder or CSV: paths, labels, ids
csv_tables         rows of any CSV
cache              rows of numbers in a file, made when first asked for
caption_corpus     captions without images, split into training and held out
labelled_reports   reports with one label each: Open-I's, and those of a CSV
mesh_terms         MeSH terms of Open-I -> classes of CheXpert
prompt_parser      the findings that a prompt asks for
"""
