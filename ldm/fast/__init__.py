"""Faster or smaller computation of the same numbers, but for rounding.

switches              sets all of these for a model
fused_attention       attention as one operation, on a GPU
flash_attention       its kernels, in Triton
winograd              3 x 3 convolutions with fewer multiplications, on a CPU (and winograd.cpp)
unfolded_convolution  3 x 3 convolutions of small maps as products of matrices, for training
half_norms            GroupNorm of bfloat16, for training on a CPU
tiled_vae             the autoencoder in tiles, in a third of the memory
compilation           the U-Net by torch.compile
"""
