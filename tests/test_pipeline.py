"""Text -> image: a picture hangs on its own prompt, index and settings, and trouble is told."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import assert_same
from torch import Tensor

import ldm
from ldm import rng
from ldm.config import ConfigError, ModelConfig
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.vae import Posterior
from ldm.weights.export import save
from ldm.weights.loading import load_parts, weights_hash

SAMPLING = Sampling(seed=3, steps=4, sampler="ddpm", height=32, width=32)
PROMPT = "lung xray with pleural effusion"


def bytes_of(pictures: Tensor) -> Tensor:
    """[B, C, H, W] -> the grey levels of their PNGs"""
    return torch.stack([torch.from_numpy(image_files.to_integers(x)) for x in pictures]).int()


def test_latents_are_scaled_on_the_way_in_and_unscaled_on_the_way_out(
    tiny: LatentDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """scale_factor times the posterior's mean; divided by it before decoding; pictures clamped."""
    x = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0]).expand(2, 4, 5, 5)
    monkeypatch.setattr(tiny.vae, "encode", lambda images: Posterior(images, images))
    monkeypatch.setattr(tiny.vae, "decode", lambda z: z)
    assert torch.allclose(tiny.encode_images(x), 0.18215 * x), "encode: the scale factor"
    found = tiny.decode(0.18215 * x)
    assert torch.allclose(found[..., 2:4], x[..., 2:4]), "decode: divided by the scale factor"
    assert found.aminmax() == (-1, 1), "decode: clamped to [-1, 1]"


# --- one picture ---


@pytest.mark.parametrize("company", [range(16), range(7, 9), [9, 8, 7]])
def test_image_7_is_the_same_picture_in_any_company(
    tiny: LatentDiffusion, monkeypatch: pytest.MonkeyPatch, company: Sequence[int]
) -> None:
    """The noise of every step is equal bit for bit; of the pixels >= 99.9 % are, none is off by 2.

    Networks add in another order in another batch, which may tip a grey level over.
    """
    drawn: dict[tuple[int, ...], dict[int, Tensor]] = {}
    noise = rng.gaussian

    def record(seed: int, indices: Sequence[int], step: int, shape: Sequence[int]) -> Tensor:
        rows = noise(seed, indices, step, shape)
        drawn.setdefault(tuple(indices), {})[step] = rows
        return rows

    monkeypatch.setattr(rng, "gaussian", record)
    others = ["no findings" if index != 7 else PROMPT for index in company]
    alone = bytes_of(tiny.draw([PROMPT], [7], SAMPLING))[0]
    among = bytes_of(tiny.draw(others, company, SAMPLING))
    mine = list(company).index(7)
    assert list(drawn[7,]) == list(drawn[tuple(company)]) == [-1, 0, 1, 2, 3]
    for step, rows in drawn[7,].items():
        assert torch.equal(drawn[tuple(company)][step][mine], rows[0])
    off = (among[mine] - alone).abs()
    assert off.max() <= 1
    assert (off == 0).float().mean() >= 0.999
    neighbour = among[mine - 1] if mine else among[mine + 1]
    assert (neighbour != alone).float().mean() > 0.5  # the comparison can tell pictures apart


def test_every_prompt_is_encoded_alone_and_once(
    tiny: LatentDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Company then changes no bit of what the U-Net attends to, and repeats cost nothing."""
    calls: list[Sequence[str]] = []
    encode = tiny.encode_text
    monkeypatch.setattr(tiny, "encode_text", lambda one: calls.append(one) or encode(one))
    prompts = [PROMPT, "no findings", PROMPT, "edema"]
    with torch.inference_mode():
        together = tiny.encode_each(prompts)
        assert calls == [[PROMPT], ["no findings"], ["edema"]]
        for prompt, row in zip(prompts, together, strict=True):
            assert torch.equal(encode([prompt])[0], row)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"steps": 5},
        {"sampler": "ddim"},
        {"guidance": 3.0},
        {"negative": "edema"},
        {"width": 64},
    ],
)
def test_every_setting_counts(tiny: LatentDiffusion, change: dict) -> None:
    """Another value of any setting is another picture."""
    other = replace(SAMPLING, **change)
    picture = tiny.draw([PROMPT], [0], other)
    assert picture.shape == (1, 3, 32, other.width)
    before = tiny.draw([PROMPT], [0], SAMPLING)
    assert not torch.equal(picture[..., :32], before)


def test_guidance_1_takes_no_negative(
    tiny: LatentDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guidance 1 is off: nothing but the prompt is encoded, the network runs on single batches."""
    seen: list[object] = []
    unet, encode = tiny.unet.forward, tiny.encode_text
    monkeypatch.setattr(tiny.unet, "forward", lambda x, t, c: seen.append(len(x)) or unet(x, t, c))
    monkeypatch.setattr(
        tiny, "encode_text", lambda prompts: seen.append(prompts) or encode(prompts)
    )
    tiny.draw([PROMPT], [0], replace(SAMPLING, guidance=1, negative="edema"))
    assert seen == [[PROMPT], 1, 1, 1, 1]
    seen.clear()
    tiny.draw([PROMPT], [0], replace(SAMPLING, guidance=2, negative="edema"))
    assert seen == [[PROMPT], ["edema"], 2, 2, 2, 2]


def test_steps_are_told(tiny: LatentDiffusion) -> None:
    """on_step sees every step once, the last one's latents are those that are decoded."""
    seen = []
    picture = tiny.draw([PROMPT], [0], SAMPLING, on_step=seen.append)
    assert [step.i for step in seen] == [0, 1, 2, 3]
    assert torch.equal(tiny.decode(seen[-1].x), picture)


# --- what cannot be drawn ---


@pytest.mark.parametrize(("height", "width"), [(34, 32), (32, 34), (0, 32), (32, 0), (2, 2)])
def test_sizes_that_the_latents_cannot_hold_are_refused(
    tiny: LatentDiffusion, height: int, width: int
) -> None:
    """A side that is no multiple of the factors of VAE and U-Net, here 2 x 2, is refused."""
    with pytest.raises(
        ConfigError, match=f"multiples of 4, not {width}x{height}; .* trained at 32"
    ):
        tiny.draw([PROMPT], [0], replace(SAMPLING, height=height, width=width))


def test_more_steps_than_the_schedule_has_are_refused(tiny: LatentDiffusion) -> None:
    """1000 noise levels give 1000 steps at most."""
    tiny.check(replace(SAMPLING, steps=1000))
    with pytest.raises(ConfigError, match="at most 1000 steps, not 1001"):
        tiny.draw([PROMPT], [0], replace(SAMPLING, steps=1001))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampler": "magic"}, "unknown sampler 'magic'; known: ddpm, ddim"),
        ({"steps": 0}, "cannot draw in 0 steps; use 1 or more"),
        ({"guidance": float("nan")}, "guidance must be a finite number, got nan"),
        ({"guidance": float("-inf")}, "guidance must be a finite number, got -inf"),
    ],
)
def test_settings_that_no_model_has_are_refused(change: dict, message: str) -> None:
    """Nonsense is refused before a model is loaded."""
    with pytest.raises(ConfigError, match=message):
        replace(SAMPLING, **change)


# --- trouble on the way ---


def test_a_decoder_that_overflows_is_run_again_in_float32(
    tiny: LatentDiffusion, caplog: pytest.LogCaptureFixture
) -> None:
    """Activations beyond float16 cost a warning, not the picture, and the VAE stays float16.

    The first layer's weights fit into float16, but what it makes of the latents does not.
    """
    pipe = copy.deepcopy(tiny).to("cpu", torch.float16)
    z = rng.gaussian(0, [0], -1, pipe.latent_shape(32, 32)).half()
    pipe.decode(z)
    assert caplog.messages == []
    pipe.vae.decoder.conv_in.weight.data *= 1e4
    before = copy.deepcopy(pipe.vae.state_dict())
    picture = pipe.decode(z)
    assert caplog.messages == ["the decoder overflowed in torch.float16; decoding again in float32"]
    expected = copy.deepcopy(pipe).to("cpu", torch.float32).decode(z.float())
    torch.testing.assert_close(picture, expected, rtol=0, atol=0.01)  # z / 0.18215 was in half
    assert_same(pipe.vae.state_dict(), before)


def test_nan_is_an_error_not_a_picture(tiny: LatentDiffusion) -> None:
    """Latents or images that are not finite raise, also in float32, and say in which network."""
    broken = copy.deepcopy(tiny)
    broken.vae.decoder.conv_out.bias.data[0] = torch.nan
    with pytest.raises(FloatingPointError, match="image is not finite: the decoder's weights"):
        broken.draw([PROMPT], [0], SAMPLING)
    broken.unet.conv_out.bias.data[0] = torch.inf
    with pytest.raises(FloatingPointError, match=r"latents are not finite in torch\.float32"):
        broken.draw([PROMPT], [0], SAMPLING)


def test_words_beyond_77_tokens_are_named(
    tiny: LatentDiffusion, caplog: pytest.LogCaptureFixture
) -> None:
    """A prompt that does not fit is drawn without its end, and the words left out are told.

    75 tokens fit between start and end. A word is lost whole, even if some of its tokens fit.
    """
    fits, words = "lung " * 74 + "film", "with cardiomegaly"
    short = tiny.draw([fits], [0], SAMPLING)
    assert caplog.messages == []
    long = tiny.draw([f"{fits} {words}"], [0], SAMPLING)
    assert caplog.messages == [f"prompt over 77 tokens, these words are ignored: {words}"]
    assert torch.equal(short, long)
    caplog.clear()
    tiny.encode_text(["lung " * 74 + "cardiomegaly"])  # of its tokens one would fit
    assert caplog.messages == ["prompt over 77 tokens, these words are ignored: cardiomegaly"]
    caplog.clear()
    tiny.draw(["lung"], [0], replace(SAMPLING, negative=f"{fits} {words}"))
    assert [words in message for message in caplog.messages] == [True]


# --- loading ---


def test_a_file_that_lacks_a_part_is_refused(
    tmp_path: Path, tiny_ckpt: Path, tiny_config: ModelConfig
) -> None:
    """A VAE alone can be saved, but not drawn with; the missing parts are named."""
    vae = {"vae": load_parts(tiny_ckpt, tiny_config)[1]["vae"]}
    path = save(tmp_path / "vae.safetensors", tiny_config, vae)
    with pytest.raises(ValueError, match="has no text and no unet; train the missing part"):
        ldm.load(path)


def test_loading_keeps_every_weight_and_its_name(tiny: LatentDiffusion, tiny_ckpt: Path) -> None:
    """The networks hold the file's tensors in float32 and eval mode, and know their hash."""
    parts = load_parts(tiny_ckpt, tiny.config)[1]
    for name, module in (("unet", tiny.unet), ("vae", tiny.vae), ("text", tiny.text)):
        assert_same(dict(module.state_dict()), parts[name])
        assert not module.training
    assert tiny.weights_hash == weights_hash(parts)
