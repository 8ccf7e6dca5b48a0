"""Other text encoders in CLIP's place."""
