"""Weights of any layout <-> ours.

loading            a file or folder of any layout -> state dicts, or a model (extra_tensors.json)
weight_files       reads the tensors and the config of a file or folder of any layout
foreign_files      what a file of other programs really is, and which files hold a part
safe_pickle        reads a .ckpt without running its code
tensor_names       our names, CompVis's, those of diffusers folders (tensor_names.csv)
diffusers_configs  config.json files of a diffusers folder <-> ModelConfig (diffusers_settings.json)
foreign_adapters   new words and LoRAs of other programs, read and written
export             writes weights in any layout, whole or not at all
checksums          python -m ldm.weights check FILE ...
clip_vocabulary    the files of a tokenizer, for diffusers
conversion         python -m ldm.weights convert|lora IN OUT
adapters           small files beside a model: new words, LoRA, projections, the judge
"""

from ldm.weights.loading import load

__all__ = ["load"]
