"""Images -> features -> findings.

extractors  every network that images can be judged by, with its preprocessing
judge       our own DenseNet, its config and its file
inception   Inception-v3 of the FID papers
"""
