"""Text encoders in the place of CLIP's.

bert               the network: token ids -> states
bert_files         its folder of config.json, vocab.txt and weights, read and written
wordpiece          its tokenizer: text -> token ids
vocabulary         learns the tokenizer's vocabulary from texts
pooling            reports -> feature vectors
projection         maps from one encoder's space to another's; ridge regression
projected_encoder  a BERT whose projected states the U-Net attends to
"""
