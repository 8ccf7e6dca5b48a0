"""Arrays in, numbers with intervals out; no networks.

estimate            a value with its interval and n
classification      proportions, medians, AUC, F1, precision and recall
fid                 Fréchet distance, KID, CMMD, precision and recall of two sets of features
image_quality       RMSE, PSNR, SSIM and MS-SSIM of two images
nearest_images      copies of training images among generated ones
chest_anatomy       lungs, heart and ribs of a radiograph, by its grey levels
localization        does a map lie on a mask: pointing game, IoU, AUC over cells
retrieval           CheXpert@k of text embeddings
agreement           kappas and d' of readers
reader_sample_size  images that a study of readers needs
"""
