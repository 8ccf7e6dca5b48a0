"""Text encoders in the place of CLIP's.

bert               the network: token ids -> states
bert_files         reads and writes its folder of config, vocab.txt and weights (bert_names.json)
wordpiece          its tokenizer: text -> token ids
vocabulary         learns the tokenizer's vocabulary from texts
pooling            reports -> feature vectors
projection         maps from one encoder's space to another's; ridge regression
weighted_prompts   (word:1.2), BREAK and prompts of more than 77 tokens, for CLIP's tower
projected_encoder  a BERT whose projected states the U-Net attends to
"""
