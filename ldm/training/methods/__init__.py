"""The methods of training, named by METHODS of training_run and handed to the Trainer.

pretraining          the VAE, the text tower, the U-Net, from scratch
adaptation           a finished U-Net learns from a few images: fine-tuning, LoRA, the prior
textual_inversion    a finished model learns a new word
projection_training  another text encoder in CLIP's place
bert_pretraining     a BERT by masked language modelling
judge_training       the judge, a classifier of findings
model_parts          the parts of a model in training, and how much memory they take
"""
