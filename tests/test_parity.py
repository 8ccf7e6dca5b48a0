"""The networks and the guided pipeline against the CompVis reference, and its traps one by one.

The goldens are what the reference computed from the same pseudo-random weights. Both sides work in
float32 and add in different orders, so agreement is measured in relative L2: 1e-5 for one pass of
a network, 5e-5 for the guided pipeline, where guidance multiplies the differences by 7.5. The
smallest mistake tried (t off by one) changes the output by 4e-2.
"""

import copy
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import golden, reference_names, relative_l2
from pseudo import unit
from torch import Tensor, nn

from ldm.attention import FeedForward
from ldm.blocks import timestep_embedding
from ldm.guidance import guide
from ldm.pipeline import LatentDiffusion
from ldm.samplers import DDIM, PLMS, Sampler, sample
from ldm.vae import Downsample

ONE_PASS, GUIDED = 1e-5, 5e-5
PROMPTS = (
    "",
    "a photo of a lung xray",
    "a photo of a lung xray with a visible pleural effusion",
)
SIZES = [pytest.param("tiny"), pytest.param("full", marks=pytest.mark.slow)]
PREFIX = {"tiny": "tiny_", "full": ""}
# where the activations that the goldens keep are in our networks, of either size
UNET_ACTIVATIONS = {
    "time_embed": "time_embed",
    "input_blocks.0": "conv_in",
    "input_blocks.1": "down.0.attn.0",
    "middle_block": "mid.res.1",
}
TINY_ACTIVATIONS = {  # those after the first level are of the twin's two levels
    "input_blocks.2": "down.0.resample",
    "input_blocks.3": "down.1.attn.0",
    "output_blocks.0": "up.0.attn.0",
    "output_blocks.1": "up.0.resample",
    "output_blocks.2": "up.1.attn.0",
    "output_blocks.3": "up.1.attn.1",
}
VAE_ACTIVATIONS = {
    "encoder.conv_in": "encoder.conv_in",
    "encoder.down.0": "encoder.down.0.resample",
    "encoder.mid.attn_1": "encoder.mid.attn.0",
    "encoder.mid.block_2": "encoder.mid.res.1",
    "encoder.conv_out": "encoder.conv_out",
    "decoder.conv_in": "decoder.conv_in",
    "decoder.mid.attn_1": "decoder.mid.attn.0",
    "decoder.mid.block_2": "decoder.mid.res.1",
}


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(params=SIZES)
def case(request: pytest.FixtureRequest) -> tuple[str, LatentDiffusion]:
    return request.param, request.getfixturevalue(request.param)


@contextmanager
def recorded(module: nn.Module, names: dict[str, str]) -> Iterator[dict[str, Tensor]]:
    """What the submodules return while `module` runs: {name in the goldens: output}."""
    seen: dict[str, Tensor] = {}
    hooks = [
        module.get_submodule(ours).register_forward_hook(
            lambda _, __, output, theirs=theirs: seen.__setitem__(theirs, output)
        )
        for theirs, ours in names.items()
    ]
    yield seen
    for hook in hooks:
        hook.remove()


def assert_activations(seen: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    for name, output in seen.items():
        expected = want[f"mid/{name}"]  # the goldens keep every n-th channel of the large ones
        every = output.shape[1] // expected.shape[1]
        wrong = relative_l2(output[:, ::every], expected)
        assert wrong < ONE_PASS, f"{name} is the first on the way that differs"


def unet_error(model: LatentDiffusion, want: dict[str, Tensor]) -> float:
    context = torch.from_numpy(unit("unet.context", (2, 77, model.config.unet.context_dim)))
    return relative_l2(model.unet(want["x"], want["t"], context), want["out"])


def vae_errors(model: LatentDiffusion, want: dict[str, Tensor]) -> dict[str, float]:
    posterior = model.vae.encode(want["image"])
    found = {
        "mean": posterior.mean,
        "logvar": posterior.logvar,
        "kl": posterior.kl(),
        "scaled_sample": posterior.sample(want["noise"]) * model.scale_factor,
        "decoded": model.vae.decode(want["latent"]),
    }
    return {name: relative_l2(value, want[name]) for name, value in found.items()}


def text_error(model: LatentDiffusion, want: dict[str, Tensor]) -> float:
    return relative_l2(model.encode_text(PROMPTS), want["last_hidden_state"])


# --- the traps that decide parity, each named ---


def normalised(x: Tensor, eps: float) -> Tensor:
    """(x - mean) / sqrt(var + eps) over 32 groups of channels, in float64."""
    groups = x.double().reshape(len(x), 32, -1)
    variance, mean = torch.var_mean(groups, dim=-1, keepdim=True, correction=0)
    return ((groups - mean) / (variance + eps).sqrt()).reshape(x.shape)


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_trap_1_group_norm_eps(tiny: LatentDiffusion, part: str) -> None:
    """GroupNorm has 32 groups; eps is 1e-5 in the U-Net's res blocks and output, else 1e-6.

    At unit variance the two look alike, at variance 1e-4 they are 4 % apart.
    """
    norms = {
        name: module
        for name, module in getattr(tiny, part).named_modules()
        if isinstance(module, nn.GroupNorm)
    }
    kind = rf"{part}/.*(resnets\..\.norm.|attentions\..\.(group_)?norm|norm_out)\.bias"
    theirs = [n for n in reference_names("tiny")["diffusers"] if re.fullmatch(kind, n)]
    assert len(norms) == len(theirs)
    for name, norm in norms.items():
        eps = 1e-5 if part == "unet" and ".attn." not in name else 1e-6
        x = 1e-2 * torch.from_numpy(unit(f"trap.{name}", (2, norm.num_channels, 4, 4)))
        expected = normalised(x, eps) * norm.weight[:, None, None] + norm.bias[:, None, None]
        assert relative_l2(norm(x), expected) < ONE_PASS, name


def test_trap_2_vae_pads_right_and_bottom_only() -> None:
    """Halving starts at pixel (0, 0): the first tap reads the even pixels, the last sees zeros."""
    half = Downsample(1)
    half.bias.zero_()
    x = torch.arange(1.0, 37).reshape(1, 1, 6, 6)
    half.weight.copy_(torch.eye(3)[0].outer(torch.eye(3)[0]))  # the tap at top left
    assert torch.equal(half(x), x[..., ::2, ::2])
    half.weight.copy_(torch.eye(3)[2].outer(torch.eye(3)[2]))  # the tap at bottom right
    assert torch.equal(half(x), F.pad(x[..., 2::2, 2::2], (0, 1, 0, 1)))


def test_trap_2_logvar_is_clamped(tiny: LatentDiffusion) -> None:
    """Log variances, the second half of the moments, are cut off beyond [-30, 20]."""
    vae = copy.deepcopy(tiny.vae)
    vae.quant.bias[4:6], vae.quant.bias[6:8] = 100.0, -100.0
    logvar = vae.encode(golden("tiny_vae")["image"]).logvar
    assert (logvar[:, :2] == 20).all()
    assert (logvar[:, 2:] == -30).all()


def test_trap_3_padding_is_end_of_text(tiny: LatentDiffusion) -> None:
    """Prompts are 77 tokens, filled up with end-of-text, 49407; open_clip itself fills with 0."""
    tokens = tiny.text.tokenize(["", "lung"])
    assert tokens.shape == (2, 77)
    assert tokens.dtype == torch.int64
    assert tokens[0].tolist() == [49406] + [49407] * 76
    assert (tokens[1, 2:] == 49407).all()


def test_trap_3_the_text_tower_has_quick_gelu(tiny: LatentDiffusion) -> None:
    """x sigmoid(1.702 x) in every layer, not the exact GELU of open_clip's plain ViT-L-14."""
    x = torch.linspace(-3, 3, 7)
    for block in tiny.text.transformer.resblocks:
        torch.testing.assert_close(block.mlp.gelu(x), x * torch.sigmoid(1.702 * x))


def test_trap_3_a_token_sees_itself_and_those_before(tiny: LatentDiffusion) -> None:
    """The mask is causal: another last word changes no state before it, and its own."""
    one, other = tiny.text(torch.tensor([[49406, 320, 1125, 539], [49406, 320, 1125, 786]]))
    assert (one - other).abs().amax(dim=1).nonzero().flatten().tolist() == [3]


def test_trap_4_geglu_is_exact_and_value_comes_first() -> None:
    """GEGLU (arXiv:2002.05202): value * gate * Phi(gate), Phi by erf; the tanh form is 1e-4 off."""
    layer = FeedForward(8).double()
    x = torch.from_numpy(unit("trap.geglu", (3, 5, 8))).double()
    y = x @ layer.in_proj.weight.T + layer.in_proj.bias
    value, gate = y[..., :32], y[..., 32:]
    hidden = value * gate * (1 + torch.erf(gate / math.sqrt(2))) / 2
    expected = hidden @ layer.out_proj.weight.T + layer.out_proj.bias
    torch.testing.assert_close(layer(x), expected, rtol=1e-10, atol=1e-12)


def test_trap_4_timestep_embedding_is_cosine_first() -> None:
    """The embedding of t is cos(t f_i), then sin(t f_i), f_i = 10000^(-i / half)."""
    t = torch.tensor([0, 1, 981])
    angles = t.double()[:, None] * 10000.0 ** (-torch.arange(16) / 16).double()
    expected = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    # float32 angles up to 981 carry an error of 6e-5
    torch.testing.assert_close(timestep_embedding(t, 32), expected, rtol=0, atol=1e-4)


# --- whole networks ---


def test_unet_agrees_with_the_reference(case: tuple[str, LatentDiffusion]) -> None:
    """The noise prediction, and activations on the way, are the reference's."""
    size, model = case
    want = golden(f"{PREFIX[size]}unet")
    names = UNET_ACTIVATIONS | (TINY_ACTIVATIONS if size == "tiny" else {})
    with recorded(model.unet, names) as seen:
        error = unet_error(model, want)
    assert_activations(seen, want)
    assert error < ONE_PASS, "the output alone differs"


def test_vae_agrees_with_the_reference(case: tuple[str, LatentDiffusion]) -> None:
    """Moments, mean, log variance, KL, a scaled sample and the decoded image are as there."""
    size, model = case
    want = golden(f"{PREFIX[size]}vae")
    with recorded(model.vae, VAE_ACTIVATIONS) as seen:
        errors = vae_errors(model, want)
    assert_activations(seen, want)
    assert relative_l2(model.vae.quant(seen["encoder.conv_out"]), want["moments"]) < ONE_PASS
    for name, error in errors.items():
        assert error < ONE_PASS, f"{name} differs, all activations agree"


def test_text_tower_agrees_with_the_reference(case: tuple[str, LatentDiffusion]) -> None:
    """Tokens are equal, and every token's state after the final layer norm is the reference's."""
    size, model = case
    want = golden(f"{PREFIX[size]}clip")
    with recorded(model.text, {"layer0": "transformer.resblocks.0"}) as seen:
        error = text_error(model, want)
    assert torch.equal(model.text.tokenize(PROMPTS), want["input_ids"])
    every = seen["layer0"].shape[2] // want["layer0"].shape[2]
    layer0 = relative_l2(seen["layer0"][..., ::every], want["layer0"])
    assert layer0 < ONE_PASS, "the embeddings of words and positions, or layer 0"
    assert error < ONE_PASS, "the layers after the first, or the final layer norm"


@pytest.mark.parametrize(
    ("name", "sampler", "options", "steps"),
    [
        ("ddim4", DDIM, {}, 4),
        ("ddim50_first3", DDIM, {}, 50),
        ("ddim5_eta1", DDIM, {"eta": 1.0}, 5),
        ("plms5", PLMS, {}, 5),
    ],
)
def test_guided_sampling_agrees_with_the_reference(
    case: tuple[str, LatentDiffusion], name: str, sampler: type[Sampler], options: dict, steps: int
) -> None:
    """Text, guidance 7.5, U-Net and sampler together give the reference's latents at every step."""
    size, model = case
    want = golden(f"{PREFIX[size]}pipeline")
    context, negative = model.encode_text([PROMPTS[2]]), model.encode_text([PROMPTS[0]])
    timesteps = model.schedule.timesteps(steps, "leading")
    denoise = guide(model.predict_eps, context, negative, 7.5)
    path = sample(
        sampler(model.schedule, **options),
        denoise,
        want["x_T"],
        timesteps,
        lambda i: torch.from_numpy(unit(f"pipeline.noise.{i}", tuple(want["x_T"].shape))),
    )
    x = want["x_T"]
    expected = want[f"{name}.x"]
    assert timesteps[: len(expected)].tolist() == want[f"{name}.t"].tolist()
    for step, x_want in zip(islice(path, len(expected)), expected, strict=True):
        x = step.x
        assert relative_l2(x, x_want) < GUIDED
    if name == "ddim4":
        assert relative_l2(model.vae.decode(x / model.scale_factor), want["decoded"]) < GUIDED


@pytest.mark.slow
def test_loading_full_size_needs_the_weights_once(full_ckpt: Path) -> None:
    """The peak of `load` is at most 1.25 times the float32 weights, interpreter and all.

    VmHWM is the strictest count: it has both private memory and the pages of mapped files, which
    the kernel could drop, and the libraries as well.
    """
    script = (
        "import sys, ldm;"
        "pipe = ldm.load(sys.argv[1]);"
        "weights = [p for m in (pipe.unet, pipe.vae, pipe.text) for p in m.parameters()];"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'));"
        "print(int(status['VmHWM'].split()[0]) * 1024 / sum(4 * p.numel() for p in weights))"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak is read from /proc/self/status, which only Linux has")
    command = [sys.executable, "-c", script, str(full_ckpt)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.25
