"""Writing weights: round trips between the layouts, and files that appear whole or not at all."""

import copy
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import assert_one_line, assert_same, flat, state_of
from safetensors.torch import load_file
from torch import Tensor

from ldm.clip import tokenizer
from ldm.config import ModelConfig
from ldm.system.cli import load_config
from ldm.weights.conversion import convert, main
from ldm.weights.export import export, save
from ldm.weights.loading import load_parts, weights_hash
from ldm.weights.weight_files import WeightsError, read


@pytest.mark.parametrize(
    "names",
    [
        ("a.safetensors", "b.ckpt"),
        ("folder", "b.ckpt"),
        ("a.safetensors", "folder", "b.ckpt"),
        ("a.ckpt", "folder", "c.safetensors", "b.ckpt"),
    ],
)
def test_there_and_back_changes_no_bit(
    tmp_path: Path, tiny_ckpt: Path, tiny_yaml: Path, tiny_state: dict[str, Tensor], names: tuple
) -> None:
    """compvis -> ours or diffusers -> compvis gives the same names, dtypes and bits, extras too."""
    source, options = tiny_ckpt, ["--config", str(tiny_yaml)]
    for name in names:
        assert main(["convert", str(source), str(tmp_path / name), *options]) == 0
        source, options = tmp_path / name, []  # from here on the config travels along
    assert_same(state_of(source), tiny_state)
    assert read(source).config == load_config(ModelConfig, tiny_yaml)


def test_diffusers_folder_comes_back_as_it_was(tmp_path: Path, tiny_diffusers: Path) -> None:
    """diffusers -> ours -> diffusers keeps every tensor and every setting of the configs."""
    convert(tiny_diffusers, tmp_path / "ours.safetensors")
    convert(tmp_path / "ours.safetensors", tmp_path / "folder")
    for file in tiny_diffusers.rglob("*.*"):
        copy = tmp_path / "folder" / file.relative_to(tiny_diffusers)
        if file.suffix == ".safetensors":
            assert_same(load_file(copy), load_file(file))
            continue
        before, after = (json.loads(path.read_text()) for path in (file, copy))
        if file.parent.name == "vae":
            before["sample_size"] = 32  # the twin's says 512, which no network depends on
        assert before.items() <= after.items()


def test_compvis_names_in_a_safetensors_file(
    tmp_path: Path, tiny_ckpt: Path, tiny_config: ModelConfig, tiny_state: dict[str, Tensor]
) -> None:
    """`--to compvis` with a .safetensors keeps CompVis names, in a file that safetensors reads."""
    target = tmp_path / "model.safetensors"
    assert convert(tiny_ckpt, target, "compvis", tiny_config) == [target]
    assert_same(load_file(target), tiny_state)


def test_convert_reports_what_it_wrote(
    tmp_path: Path, tiny_diffusers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Paths, one a line; with --json one object with paths and the time."""
    target = tmp_path / "model.safetensors"
    assert main(["convert", str(tiny_diffusers), str(target)]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    assert main(["convert", str(target), str(tmp_path / "model.ckpt"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["paths"] == [str(tmp_path / "model.ckpt")]
    assert report["seconds"]["convert"] > 0


def test_patched_models_have_no_place_in_diffusers(
    tmp_path: Path, tiny_ckpt: Path, tiny_config: ModelConfig
) -> None:
    """A config that diffusers cannot express is an error, not a folder of something else."""
    parts = load_parts(tiny_ckpt, tiny_config)[1]
    patched = dataclasses.replace(tiny_config, unet=dataclasses.replace(tiny_config.unet, patch=2))
    with pytest.raises(ValueError, match="patch > 1"):
        export("diffusers", tmp_path / "folder", patched, parts)
    assert list(tmp_path.iterdir()) == []


BAD_TARGETS = {
    "no such folder": lambda tmp: tmp / "nowhere" / "model.safetensors",
    "below a file": lambda tmp: tmp / "file" / "model.ckpt",
    "a folder in its place": lambda tmp: tmp / "full",
    "a folder, for a file": lambda tmp: tmp / "full.ckpt",
    "a file, for a folder": lambda tmp: tmp / "file",
}


@pytest.mark.parametrize("case", BAD_TARGETS)
def test_unwritable_targets_are_one_line_and_leave_nothing(
    tmp_path: Path, tiny_diffusers: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    """A target that cannot be written: exit status 2, one line, and the disk is as it was."""
    (tmp_path / "file").write_text("mine")
    for folder in ("full", "full.ckpt"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    target = BAD_TARGETS[case](tmp_path)
    assert main(["convert", str(tiny_diffusers), str(target)]) == 2
    assert_one_line(capsys.readouterr().err, "cannot write")
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["new.ckpt", "new.safetensors", "folder"])
def test_a_full_disk_leaves_no_half_written_file(
    tmp_path: Path, tiny_diffusers: Path, name: str
) -> None:
    """When the disk is full (here: a limit of 1 MB a file) nothing new appears, and old stays."""
    pytest.importorskip("resource", reason="file size limits need POSIX")
    (tmp_path / "new.ckpt").write_text("old")
    script = (
        "import resource, signal, sys; from ldm.weights.conversion import main;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20));"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "convert", str(tiny_diffusers), str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert_one_line(done.stderr, "cannot write")
    assert [path.name for path in tmp_path.iterdir()] == ["new.ckpt"]
    assert (tmp_path / "new.ckpt").read_text() == "old"


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_equal_weights_are_equal_bytes(tmp_path: Path, tiny_diffusers: Path, suffix: str) -> None:
    """Whatever a file is called and whoever writes it, so that a hash can check a conversion."""
    for name in "ab":
        convert(tiny_diffusers, tmp_path / (name + suffix))
    one, other = (path.read_bytes() for path in tmp_path.iterdir())
    assert one == other


def test_saving_over_a_file_in_use_leaves_its_reader_alone(
    tmp_path: Path, tiny_ckpt: Path, tiny_config: ModelConfig
) -> None:
    """Weights mapped from a file keep their values when the file is saved anew or deleted."""
    config, parts = load_parts(tiny_ckpt, tiny_config)
    path = save(tmp_path / "model.safetensors", config, parts)
    mapped = load_parts(path)[1]
    before = copy.deepcopy(mapped["vae"])
    other = {part: {n: t + 1 for n, t in state.items()} for part, state in parts.items()}
    save(path, config, other)
    assert_same(mapped["vae"], before)
    path.unlink()
    assert_same(mapped["vae"], before)


def test_others_may_read_what_was_written(
    tmp_path: Path, tiny_ckpt: Path, tiny_config: ModelConfig
) -> None:
    """Weights get the permissions that any new file gets here."""
    config, parts = load_parts(tiny_ckpt, tiny_config)
    (tmp_path / "plain").write_text("")
    for layout, name in (("ours", "model.safetensors"), ("compvis", "model.ckpt")):
        (path,) = export(layout, tmp_path / name, config, parts)
        assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_convert_to_half_precision_on_request(tmp_path: Path, tiny_diffusers: Path) -> None:
    """--dtype float16 rounds every tensor to float16, and nothing else changes."""
    target = tmp_path / "half.safetensors"
    assert main(["convert", str(tiny_diffusers), str(target), "--dtype", "float16"]) == 0
    whole, half = load_parts(tiny_diffusers)[1], load_parts(target, dtype=None)[1]
    assert_same(flat(half), {name: tensor.half() for name, tensor in flat(whole).items()})


def test_a_model_leaves_to_a_file_beside_it_what_they_share(
    tmp_path: Path, tiny_diffusers: Path
) -> None:
    """A second model with the same text tower and autoencoder stores its U-Net alone."""
    config, parts = load_parts(tiny_diffusers)
    save(tmp_path / "model.safetensors", config, parts)
    parts["unet"] = {name: tensor + 1 for name, tensor in parts["unet"].items()}
    save(tmp_path / "whole", config, parts)
    target = tmp_path / "base.safetensors"
    order = ["convert", str(tmp_path / "whole"), str(target)]
    assert main([*order, "--rest", str(tmp_path / "model.safetensors")]) == 0
    assert {name.partition(".")[0] for name in load_file(target)} == {"unet"}
    assert weights_hash(target) == weights_hash(parts)
    assert load_parts(target)[0] == config


def test_a_model_without_the_file_that_holds_its_rest_is_refused(
    tmp_path: Path, tiny_diffusers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the missing file; a file elsewhere, or one with nothing in common, is no rest."""
    config, parts = load_parts(tiny_diffusers)
    save(tmp_path / "model.safetensors", config, parts)
    changed = {name: tensor + 1 for name, tensor in parts["unet"].items()}
    save(tmp_path / "whole", config, {**parts, "unet": changed})
    target, other = tmp_path / "base.safetensors", tmp_path / "model.safetensors"
    (tmp_path / "far").mkdir()
    order = ["convert", str(tmp_path / "whole")]
    assert main([*order, str(tmp_path / "far" / "base.safetensors"), "--rest", str(other)]) == 2
    assert "beside it" in capsys.readouterr().err
    assert main([*order[:1], str(other), str(target), "--rest", str(other)]) == 2
    assert "all parts in common" in capsys.readouterr().err
    assert main([*order, str(target), "--rest", str(other)]) == 0
    other.unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors, which does not exist"):
        load_parts(target)


def test_a_diffusers_folder_is_a_whole_pipeline(tmp_path: Path, tiny_diffusers: Path) -> None:
    """model_index.json names each part, and the tokenizer's files give open_clip's tokens.

    StableDiffusionPipeline.from_pretrained of diffusers 0.42.1 opened such folders of the tiny
    twins of SD 1.4 and 2.x: tokens and text states equal, images within 1e-5.
    """
    convert(tiny_diffusers, tmp_path / "folder")
    index = json.loads((tmp_path / "folder" / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    parts = {name for name, where in index.items() if isinstance(where, list) and where[0]}
    assert parts == {path.name for path in (tmp_path / "folder").iterdir() if path.is_dir()}
    words = tmp_path / "folder" / "tokenizer"
    vocabulary = json.loads((words / "vocab.json").read_text(encoding="utf-8"))
    bpe = tokenizer()
    assert sorted(vocabulary.values()) == list(range(49408))
    assert vocabulary["<|endoftext|>"] == bpe.eot_token_id
    assert all(vocabulary[token] == number for token, number in list(bpe.encoder.items())[:-2])
    header, *merges = (words / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert header.startswith("#version")
    assert [tuple(line.split(" ")) for line in merges] == sorted(
        bpe.bpe_ranks, key=bpe.bpe_ranks.__getitem__
    )
