"""The compiled U-Net: the same numbers, one graph for one shape, kept on the disk."""

import copy
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import SIZES, adaptation, assert_one_line, relative_l2
from safetensors.torch import load_file
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import ldm
import sample
from ldm import lora
from ldm.blocks import ResBlock
from ldm.config import ConfigError, ModelConfig, from_dict
from ldm.drawing.drawing_settings import recall
from ldm.fast import compilation, switches, winograd
from ldm.pictures import image_files
from ldm.pipeline import Sampling
from ldm.training import training_run
from ldm.training.trainer import Trainer
from ldm.training.training_run import RunConfig, TrainConfig, build_method, load_run
from ldm.unet import UNet

ROOT = Path(__file__).parent.parent
Inputs = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where all of these tests keep what they compile."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("compiled")
        patch.setenv(compilation.CACHE, str(path))
        yield path
        torch.compiler.reset()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounterWithBackend]:
    """Counts graphs and runs them without the C++ compiler, which takes most of the time."""
    torch.compiler.reset()
    counter = CompileCounterWithBackend("eager")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    yield counter
    torch.compiler.reset()


def small(channels: tuple[int, ...] = (16, 32), attends: bool = True) -> UNet:
    """A U-Net that attends at its last level, besides the middle."""
    attention = [attends and i == len(channels) - 1 for i in range(len(channels))]
    sizes = SIZES["unet"] | {"channels": list(channels), "attention": attention}
    torch.manual_seed(0)
    return UNet(from_dict(ModelConfig, SIZES | {"unet": sizes}).unet)


def inputs(seed: int = 0, batch: int = 2) -> Inputs:
    drawn = torch.Generator().manual_seed(seed)
    x, context = (torch.randn(batch, *shape, generator=drawn) for shape in ((4, 8, 8), (77, 16)))
    return x, torch.randint(1000, (batch,), generator=drawn), context


def predict(unet: UNet, given: Inputs) -> Tensor:
    with torch.inference_mode():
        return unet(*given)


def gradients(unet: UNet, given: Inputs) -> Tensor:
    """The gradients of all learned parameters, flattened."""
    unet.zero_grad()
    unet(*given).float().square().mean().backward()
    return torch.cat([p.grad.flatten() for p in unet.parameters() if p.requires_grad])


def half_gradients(unet: UNet, given: Inputs) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return gradients(unet, given)


# --- one graph ---


def use_winograd(unet: UNet) -> None:
    try:
        assert winograd.use(unet) > 3
    except ConfigError as error:
        pytest.skip(str(error))


SWITCHES: dict[str, Callable[[UNet], object]] = {
    "reference": lambda unet: unet.set_attention("reference"),
    "checkpointing": lambda unet: unet.set_checkpointing(True),
    "LoRA": lambda unet: lora.inject(unet, 2, 2.0),
    "Winograd": use_winograd,
}


def grow(unet: UNet) -> None:
    """Train a little: all weights change in place."""
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.mul_(1.01)


@pytest.mark.parametrize(
    ("switch", "run"),
    [
        pytest.param("reference", predict, marks=pytest.mark.slow),
        ("Winograd", predict),
        ("checkpointing", half_gradients),
        ("LoRA", gradients),
    ],
)
def test_one_graph_serves_all_steps(
    switch: str, run: Callable[[UNet, Inputs], Tensor], graphs: CompileCounterWithBackend
) -> None:
    """With other switches, by autocast too, new weights and inputs need no second graph."""
    unet = small((64,))  # wide enough for Winograd on any machine
    SWITCHES[switch](unet)
    plain = copy.deepcopy(unet).to(memory_format=torch.channels_last)  # as the compiled one is
    compilation.use(unet, "whole")
    graphs.clear()
    for seed in range(2):
        grow(unet)
        grow(plain)
        given = inputs(seed)
        assert relative_l2(run(unet, given), run(plain, given)) < 1e-5
    assert graphs.frame_count == 1


def test_another_batch_is_another_graph(graphs: CompileCounterWithBackend) -> None:
    """The last, smaller batch of a folder is compiled once more, and not a third time."""
    block = compilation.Compiled(ResBlock(16, 16, 4, 1e-5))
    for batch, count in ((4, 1), (2, 2), (4, 2), (2, 2)):
        block(torch.zeros(batch, 16, 8, 8))
        assert graphs.frame_count == count


def test_blocks_of_equal_shape_share_a_graph(graphs: CompileCounterWithBackend) -> None:
    """There are as many graphs as kinds of block with their shapes: fewer than blocks."""
    unet, seen = small(), []
    for block in compilation.blocks(unet):
        block.register_forward_hook(lambda m, x, y: seen.append((type(m), x[0].shape, y.shape)))
    expected = predict(unet, inputs())
    unet = small()
    compilation.use(unet, "regions")
    graphs.clear()
    assert relative_l2(predict(unet, inputs()), expected) < 1e-5
    assert graphs.frame_count == len(set(seen)) < len(seen)


def test_many_shapes_of_blocks_are_no_limit(graphs: CompileCounterWithBackend) -> None:
    """PyTorch's limit of graphs of one piece of code is raised to what the blocks need."""
    unet = small((16,), attends=False)
    with torch._dynamo.config.patch(recompile_limit=1):
        compilation.use(unet, "regions")
        for batch in (1, 2):
            predict(unet, inputs(batch=batch))
    assert graphs.frame_count > 4


# --- with the C++ compiler ---

FROM_DISK = """
import sys, torch
from torch._dynamo.utils import counters
from test_compilation import block_output
torch.set_num_threads(int(sys.argv[1]))
block_output(compiled=True)
print(counters["inductor"]["fxgraph_cache_hit"], counters["inductor"]["fxgraph_cache_miss"])
"""


def block_output(compiled: bool) -> Tensor:
    torch.manual_seed(0)
    block, x = ResBlock(16, 16, 4, 1e-5), torch.randn(2, 16, 8, 8)
    with torch.inference_mode():
        return (compilation.Compiled(block) if compiled else block)(x)


def test_the_numbers_are_the_same_and_kept_on_the_disk() -> None:
    """A compiled block is equal to 1e-5; another process compiles nothing again."""
    torch.compiler.reset()
    compilation.keep_on_disk()
    found, expected = block_output(compiled=True), block_output(compiled=False)
    assert not torch.equal(found, expected)  # it was compiled
    assert relative_l2(found, expected) < 1e-5
    command = [sys.executable, "-c", FROM_DISK, str(torch.get_num_threads())]
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    hits, misses = map(int, done.stdout.split())
    assert hits > 0
    assert misses == 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["whole", "regions"])
def test_the_gradients_are_the_same(mode: str) -> None:
    """To 1e-5, under the same names of weights, until it is switched off."""
    torch.compiler.reset()
    unet = small()
    expected, names = gradients(unet, inputs()), list(unet.state_dict())
    compilation.use(unet, mode)
    assert list(unet.state_dict()) == names
    found = gradients(unet, inputs())
    assert not torch.equal(found, expected)  # it was compiled
    assert relative_l2(found, expected) < 1e-5
    compilation.use(unet, "no")
    unet.to(memory_format=torch.contiguous_format)  # the layout that it was made in
    assert torch.equal(gradients(unet, inputs()), expected)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["whole", "regions"])
def test_the_same_picture_is_drawn(mode: str) -> None:
    """The built-in model, guided, draws the same picture to 1e-4 after three steps."""
    torch.compiler.reset()
    pipe = ldm.load(ROOT / "weights")
    sampling = Sampling(steps=3, guidance=2.0, height=128, width=128)
    expected = pipe.draw(["lung xray"], [0], sampling)
    switches.choose(pipe, in_tiles=True, compile=mode)
    found = pipe.draw(["lung xray"], [0], sampling)
    assert not torch.equal(found, expected)
    assert relative_l2(found, expected) < 1e-4  # tiles and guidance make rounding larger


# --- where it cannot be ---


def test_a_missing_compiler_is_one_line(model: Path, tmp_path: Path) -> None:
    """sample.py says what is needed, ends with exit status 2 and writes nothing."""
    given = ["--model", model, "--prompt", "x", "--device", "cpu", "--out", tmp_path / "out"]
    command = [sys.executable, ROOT / "sample.py", *given, "--compile"]
    env = {"CXX": str(tmp_path / "g++"), compilation.CACHE: str(tmp_path / "cache")}
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines(True) if "CUDA_HOME" not in line]
    assert_one_line("".join(lines), "No working C++ compiler", "leave out --compile")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("broken", ["backend", "graph", "limit"])
def test_what_fails_at_the_first_call_is_one_line(
    broken: str, graphs: CompileCounterWithBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiler that fails, code that is more than one graph, too many shapes."""
    layer = nn.Linear(4, 4)
    if broken == "graph":
        monkeypatch.setattr(layer, "forward", lambda x: (torch._dynamo.graph_break(), x)[1])
    run = compilation.Compiled(layer)
    if broken == "backend":
        monkeypatch.setattr(CompileCounterWithBackend, "__call__", lambda *x: 1 / 0)
    if broken == "limit":
        run(torch.zeros(2, 4))
    limited = torch._dynamo.config.patch(recompile_limit=1)
    match = r"^cannot compile here: .+ leave out --compile"
    with limited, pytest.raises(ConfigError, match=match) as error:
        run(torch.zeros(3, 4))
    assert "\n" not in str(error.value)


def test_an_unknown_mode_is_refused() -> None:
    """The message names the modes."""
    with pytest.raises(ConfigError, match="mode of compilation 'all'; known: no, whole, regions"):
        compilation.use(small(), "all")


def test_results_are_kept_where_the_user_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's own variable first, then the cache of the user, never /tmp."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for own, xdg, folder in (
        (str(tmp_path / "own"), "", "own"),
        ("", str(tmp_path), "ldm/compiled"),
        ("", "", "home/.cache/ldm/compiled"),
    ):
        monkeypatch.setenv(compilation.CACHE, own)
        monkeypatch.setenv("XDG_CACHE_HOME", xdg)
        compilation.keep_on_disk()
        assert os.environ[compilation.CACHE] == str(tmp_path / folder)
    (tmp_path / "file").touch()
    monkeypatch.setenv(compilation.CACHE, str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=f"it is a file; .* with {compilation.CACHE}"):
        compilation.keep_on_disk()


# --- pictures and training ---


def test_a_picture_says_how_it_was_compiled(
    start: Path, tmp_path: Path, graphs: CompileCounterWithBackend
) -> None:
    """--compile is in the PNG; --from draws with it again, and without it for older pictures."""

    def draw(out: str, *arguments: object) -> dict[str, str]:
        torch.compiler.reset()  # models of the same shapes share their graphs
        graphs.clear()
        given = ("--model", start, "--out", tmp_path / out, "--device", "cpu", *arguments)
        assert sample.main([str(argument) for argument in given]) == 0
        return image_files.read_text(tmp_path / out / "00000.png")

    text = draw("plain", "--prompt", "lung", "--n", 1, "--steps", 1)
    assert (text["compile"], graphs.frame_count) == ("no", 0)
    whole = draw("whole", "--from", tmp_path / "plain" / "00000.png", "--compile")
    assert {key for key in text if text[key] != whole.get(key)} == {"compile"}
    assert whole["compile"] == "whole"
    assert graphs.frame_count > 0
    assert recall(tmp_path / "whole" / "00000.png").compile == "whole"
    assert draw("no", "--from", tmp_path / "whole" / "00000.png", "--compile", "no") == text
    assert graphs.frame_count == 0
    old = {key: value for key, value in whole.items() if key != "compile"}
    image_files.save(torch.zeros(1, 8, 8), tmp_path / "old.png", old)
    assert recall(tmp_path / "old.png").compile == "no"


def training(start: Path, out: Path, method: str, **train: object) -> RunConfig:
    config = adaptation(out, start, method, {}, **{"sample_every": 0, **train})
    return load_run(config)


@pytest.mark.parametrize(
    "method", ["finetune", pytest.param("textual_inversion", marks=pytest.mark.slow)]
)
def test_training_compiles_as_its_config_says(
    method: str, start: Path, tmp_path: Path, graphs: CompileCounterWithBackend
) -> None:
    """All steps are one graph, and the weights are those of a training without."""
    learned = []
    for compile, count in (("", 0), ("whole", 1)):
        run = training(start, tmp_path / (compile or "no"), method, steps=3, compile=compile)
        built = build_method(run)
        graphs.clear()
        learned.append(load_file(Trainer(run, built).fit()))
        assert graphs.frame_count == count
    for name, tensor in learned[0].items():
        torch.testing.assert_close(learned[1][name], tensor, rtol=1e-4, atol=1e-5)


def test_a_run_may_go_on_compiled(start: Path, tmp_path: Path, graphs: object) -> None:
    """train.compile changes rounding alone, so a run continues with it."""
    for steps, compile in ((2, ""), (3, "regions")):
        run = training(start, tmp_path, "finetune", steps=steps, compile=compile)
        Trainer(run, build_method(run)).fit()
    assert [row["step"] for row in training_run.read_log(tmp_path / "run" / "log.jsonl")] == [
        0,
        1,
        2,
    ]


def test_the_config_knows_the_same_modes() -> None:
    """train.compile takes all modes, "" for no, which YAML reads as false."""
    modes = ["", *compilation.MODES[1:]]
    assert [from_dict(TrainConfig, {"compile": mode}).compile for mode in modes] == modes
    with pytest.raises(ConfigError, match="choose one of '', 'whole', 'regions'"):
        from_dict(TrainConfig, {"compile": False})


def test_a_training_without_a_unet_refuses(start: Path, tmp_path: Path) -> None:
    """A method that runs no U-Net refuses train.compile."""
    overrides = ["data.phantoms=40", "data.size=32", "train.compile=whole", f"model.path={start}"]
    overrides += [f"data.cache={tmp_path}", "method.crop=32", "model.config=null"]
    with pytest.raises(ConfigError, match=r"the U-Net, and train\.method=vae has none"):
        load_run(ROOT / "configs/scratch_vae.yaml", overrides)
