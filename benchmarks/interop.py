"""Do files go both ways between ldm and diffusers, peft?   python -m benchmarks.interop

Networks of tiny sizes with random weights. Each row is a layout: the difference when they write it
and it opens here, and when it is written here and opens there. Of models it is the largest of two
guided pictures in [-1, 1] (four DDIM steps); of LoRAs and words that of an output, relative (L2).
Needs diffusers, transformers and peft.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import ldm
from ldm import lora
from ldm.config import ModelConfig, from_dict, to_dict
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.system import cli
from ldm.weights import adapters, loading
from ldm.weights.conversion import convert, convert_lora, convert_word
from ldm.weights.export import export

SIZES = {
    "unet": {"channels": [32, 64], "attention": [True, False], "res_blocks": 1, "context_dim": 64},
    "vae": {"channels": [32, 32], "res_blocks": 1},
    "text": {"width": 64, "layers": 2, "heads": 4},
    "image_size": 16,
}
PROMPT = "lung xray with pleural effusion"
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "conv1", "ff.net.0.proj", "ff.net.2"]
TEXT_LAYERS = ["q_proj", "v_proj", "out_proj", "fc1"]

STARTS = {"unet": ("unet.", "lora_unet_"), "text": ("text_encoder.", "lora_te_text_model_")}


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def kohya(state: dict[str, Tensor], start: str, alpha: float) -> dict[str, Tensor]:
    """peft's tensors under the names of kohya's scripts."""
    found = {}
    for name, tensor in state.items():
        layer, _, matrix = name.removeprefix("base_model.model.").partition(".lora_")
        layer = start + layer.replace(".", "_")
        found[f"{layer}.lora_{'down' if matrix[0] == 'A' else 'up'}.weight"] = tensor.clone()
        found[f"{layer}.alpha"] = torch.tensor(alpha)
    return found


def row(layout: str, here: float | str, there: float | str) -> None:
    shown = [each if isinstance(each, str) else f"{each:.1e}" for each in (here, there)]
    print(f"| {layout} | {shown[0]} | {shown[1]} |", flush=True)


def pictures(pipe: LatentDiffusion, theirs: Any) -> float:
    """The largest difference between our picture and theirs from the same noise."""
    size = pipe.config.image_size
    sampling = Sampling(steps=4, sampler="ddim", guidance=7.5, height=size, width=size)
    ours = pipe.draw([PROMPT], [0], sampling)[0].numpy()
    theirs.set_progress_bar_config(disable=True)
    given = {"latents": pipe.noise_source(sampling, [0])(-1), "height": size, "width": size}
    drawn = theirs(PROMPT, num_inference_steps=4, guidance_scale=7.5, output_type="np", **given)
    return float(np.abs(2 * drawn.images[0].transpose(2, 0, 1) - 1 - ours).max())


def models(folder: Path) -> None:
    """Rows of whole models: packings that diffusers writes and reads."""
    from diffusers import StableDiffusionPipeline

    there = StableDiffusionPipeline.from_pretrained(folder / "model")
    there.save_pretrained(folder / "theirs")
    row(
        "diffusers folder",
        pictures(ldm.load(folder / "theirs"), there),
        pictures(ldm.load(folder / "model"), there),
    )
    there.save_pretrained(folder / "shards", max_shard_size="300KB")
    row("shards with an index", pictures(ldm.load(folder / "shards"), there), "not written")
    there.save_pretrained(folder / "bin", safe_serialization=False)
    row("pickled .bin", pictures(ldm.load(folder / "bin"), there), "not written")
    half = StableDiffusionPipeline.from_pretrained(folder / "model", torch_dtype=torch.float16)
    half.save_pretrained(folder / "half", variant="fp16")
    half = half.to(torch.float32)
    row("fp16 variant", pictures(ldm.load(folder / "half"), half), "not written")
    convert(folder / "model", folder / "sd.safetensors", "compvis")
    config = loading.load_parts(folder / "model")[0]
    single = StableDiffusionPipeline.from_single_file(
        folder / "sd.safetensors", config=str(folder / "model"), local_files_only=True
    )
    (folder / "sizes.yaml").write_text(json.dumps(to_dict(config)))
    ours = ldm.load(folder / "sd.safetensors", folder / "sizes.yaml")
    row("CompVis file", "not written", pictures(ours, single))


def words(folder: Path) -> None:
    """Rows of new words."""
    from diffusers import StableDiffusionPipeline

    vectors = {"vectors": torch.randn(2, 64)}
    adapters.save(folder / "own.safetensors", "word", vectors, {"word": "<lung>"})
    for program in ("diffusers", "a1111"):
        target = folder / f"{program}.safetensors"
        convert_word(folder / "own.safetensors", target, program)
        there = StableDiffusionPipeline.from_pretrained(folder / "model")
        there.load_textual_inversion(str(target), token="<lung>")
        pipe = ldm.load(folder / "model")
        adapters.apply(pipe, words=[str(folder / "own.safetensors")])
        prompt = there.maybe_convert_prompt("a <lung> film", there.tokenizer)
        ids = there.tokenizer([prompt], padding="max_length", max_length=77, return_tensors="pt")
        expected = there.text_encoder(ids.input_ids)[0]
        row(
            f"word, {program}", "see tests", relative(pipe.encode_text(["a <lung> film"]), expected)
        )


def written_loras(folder: Path, run: Callable[[Any], Tensor]) -> dict[str, float]:
    """{program: difference} of a LoRA of ours that diffusers or peft opens."""
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from peft import PeftModel

    own, pipe = ldm.load(folder / "model"), ldm.load(folder / "model")
    lora.inject(own.unet, rank=4, alpha=2)
    state = {n: torch.randn(t.shape) / 5 for n, t in adapters.lora_tensors(own.unet).items()}
    adapters.save(folder / "lora.safetensors", "lora", state, {"alpha": 2, "rank": 4})
    adapters.apply(pipe, loras=[str(folder / "lora.safetensors")])
    found = {}
    for program in ("diffusers", "kohya"):
        convert_lora(
            folder / "lora.safetensors",
            folder / f"{program}.lora.safetensors",
            program,
            pipe.config,
        )
        there = StableDiffusionPipeline.from_pretrained(folder / "model")
        there.load_lora_weights(str(folder), weight_name=f"{program}.lora.safetensors")
        found[program] = relative(run(pipe.unet), run(there.unet))
    convert_lora(folder / "lora.safetensors", folder / "peft.lora", "peft", pipe.config)
    plain = UNet2DConditionModel.from_pretrained(folder / "model" / "unet")
    there = PeftModel.from_pretrained(plain, folder / "peft.lora").eval()
    return found | {"peft": relative(run(pipe.unet), run(there))}


def read_loras(
    folder: Path, there: nn.Module, run: Callable[[Any], Tensor], layers: list[str], part: str
) -> dict[str, float]:
    """{layout: difference} of a LoRA that peft made; run: a network -> its output"""
    from peft import LoraConfig, get_peft_model

    changed = get_peft_model(there, LoraConfig(r=4, lora_alpha=2, target_modules=layers))
    for name, parameter in changed.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.2)
    expected = run(changed)
    changed.save_pretrained(folder / part)
    state = load_file(folder / part / "adapter_model.safetensors")
    start = STARTS[part]
    said = json.dumps({f"{start[0]}lora_alpha": 2})
    named = {start[0] + n.removeprefix("base_model.model."): t for n, t in state.items()}
    save_file(named, folder / "diffusers.safetensors", {"lora_adapter_metadata": said})
    save_file(kohya(state, start[1], 2.0), folder / "kohya.safetensors")
    found = {}
    for path in (folder / part, folder / "diffusers.safetensors", folder / "kohya.safetensors"):
        pipe = ldm.load(folder / "model")
        adapters.apply(pipe, loras=[str(path)])
        found["peft" if path.is_dir() else path.stem] = relative(run(getattr(pipe, part)), expected)
    return found


@torch.no_grad()
def main() -> int:
    cli.Parser("benchmarks.interop", "Files of other programs, here and there.").parse_args()
    try:
        from diffusers import UNet2DConditionModel
        from transformers import CLIPTextModel
    except ImportError as error:
        raise ValueError(f"{error}: pip install -e '.[bench]'") from error
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = from_dict(ModelConfig, SIZES)
        modules = {part: make(config) for part, make in loading.PARTS.items()}
        states = {part: module.state_dict() for part, module in modules.items()}
        export("diffusers", folder / "model", config, states)
        x, t, context = torch.randn(2, 4, 8, 8), torch.tensor([3, 500]), torch.randn(2, 77, 64)
        tokens = torch.randint(0, 1000, (2, 77))

        def unet(network: Any) -> Tensor:
            found = network(x, t, context)
            return found if isinstance(found, Tensor) else found.sample

        def text(network: Any) -> Tensor:
            found = network(tokens)
            return found if isinstance(found, Tensor) else found[0]

        print("| layout | written there, opens here | written here, opens there |\n|---|---|---|")
        models(folder)
        there = UNet2DConditionModel.from_pretrained(folder / "model" / "unet").eval()
        read, written = read_loras(folder, there, unet, LAYERS, "unet"), written_loras(folder, unet)
        for program in read:
            row(f"LoRA of the U-Net, {program}", read[program], written[program])
        tower = CLIPTextModel.from_pretrained(folder / "model" / "text_encoder").eval()
        for program, found in read_loras(folder, tower, text, TEXT_LAYERS, "text").items():
            row(f"LoRA of the text tower, {program}", found, "not trained here")
        words(folder)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "benchmarks.interop"))
