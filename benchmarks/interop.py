"""Do LoRAs of peft and diffusers do here what they do there?   python -m benchmarks.interop

Networks of tiny sizes with random weights, in a diffusers folder of ours; each row: a layout, and
the largest relative difference (L2) between our output and that of diffusers or transformers with
the same LoRA, beside what the LoRA changed. Needs diffusers, transformers and peft.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import ldm
from ldm.config import ModelConfig, from_dict
from ldm.system import cli
from ldm.weights import adapters, loading
from ldm.weights.export import export

SIZES = {
    "unet": {"channels": [32, 64], "attention": [True, False], "res_blocks": 1, "context_dim": 64},
    "vae": {"channels": [32, 32], "res_blocks": 1},
    "text": {"width": 64, "layers": 2, "heads": 4},
    "image_size": 16,
}
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


@torch.no_grad()
def contest(
    folder: Path, there: nn.Module, run: Callable[[Any], Tensor], layers: list[str], part: str
) -> None:
    """One row for each layout of a LoRA of `there`; run: a network -> its output."""
    from peft import LoraConfig, get_peft_model

    plain = run(there)
    changed = get_peft_model(there, LoraConfig(r=4, lora_alpha=2, target_modules=layers))
    for name, parameter in changed.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.2)
    expected = run(changed)
    changed.save_pretrained(folder / part)
    state = load_file(folder / part / "adapter_model.safetensors")
    start = {"unet": ("unet.", "lora_unet_"), "text": ("text_encoder.", "lora_te_text_model_")}[
        part
    ]
    said = json.dumps({f"{start[0]}lora_alpha": 2})
    named = {start[0] + n.removeprefix("base_model.model."): t for n, t in state.items()}
    save_file(named, folder / "diffusers.safetensors", {"lora_adapter_metadata": said})
    save_file(kohya(state, start[1], 2.0), folder / "kohya.safetensors")
    for path in (folder / part, folder / "diffusers.safetensors", folder / "kohya.safetensors"):
        pipe = ldm.load(folder / "model")
        adapters.apply(pipe, loras=[str(path)])
        layout = "peft" if path.is_dir() else path.stem
        difference = relative(run(getattr(pipe, part)), expected)
        change = relative(plain, expected)
        print(f"{part:5} {layout:10} difference {difference:.1e}, the LoRA changes {change:.2f}")


def main() -> int:
    cli.Parser("benchmarks.interop", "LoRAs of other programs, here and there.").parse_args()
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

        there = UNet2DConditionModel.from_pretrained(folder / "model" / "unet").eval()
        contest(folder, there, unet, LAYERS, "unet")
        tower = CLIPTextModel.from_pretrained(folder / "model" / "text_encoder").eval()
        contest(folder, tower, text, TEXT_LAYERS, "text")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "benchmarks.interop"))
