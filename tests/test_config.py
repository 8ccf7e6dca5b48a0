"""Settings: strict about names and types, and the same after a round trip."""

import dataclasses
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ldm.config import ConfigError, ModelConfig, TextConfig, from_dict, to_dict
from ldm.system.cli import load_config
from ldm.training.training_run import RunConfig, load_run

CHANGED: dict[str, Any] = {
    "unet": {"channels": [32, 64], "attention": [False, True], "heads": 2},
    "schedule": {"steps": 10, "prediction": "v", "final_alpha_bar": "one"},
    "scale_factor": 1.0,
}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_settings_survive_a_round_trip() -> None:
    """to_dict, YAML and from_dict together change nothing, tuples, tables and None included."""
    for settings in (
        ModelConfig(),
        RunConfig(),
        from_dict(ModelConfig, CHANGED),
        from_dict(RunConfig, {"data": {"split": None}, "method": {"rank": 4}}),
    ):
        plain = to_dict(settings)
        assert json.loads(json.dumps(plain)) == plain  # lists, not tuples
        assert from_dict(type(settings), yaml.safe_load(yaml.safe_dump(plain))) == settings


def test_given_settings_arrive_and_the_rest_keep_their_defaults() -> None:
    """What is given is taken over with its types; what is absent is as in the dataclass."""
    model = from_dict(ModelConfig, CHANGED)
    assert model.unet.channels == (32, 64)
    assert model.unet.attention == (False, True)
    assert (model.schedule.steps, model.schedule.prediction) == (10, "v")
    assert (model.unet.res_blocks, model.vae) == (ModelConfig().unet.res_blocks, ModelConfig().vae)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trian": {}}, "unknown setting 'trian'; did you mean 'train'?"),
        ({"train": {"step": 1}}, "unknown setting 'train.step'; did you mean 'steps'?"),
        ({"zzz": 1}, "unknown setting 'zzz'; known: train, data, model, method"),
        ({1: 1}, "unknown setting '1'; known: "),
        ({"train": None}, "train must be a table of settings, got None"),
        ({"train": {"steps": "many"}}, "train.steps must be int, got 'many'"),
        ({"train": {"steps": 1.5}}, "train.steps must be int, got 1.5"),
        ({"train": {"steps": True}}, "train.steps must be int, got True"),
        ({"train": {"steps": None}}, "train.steps must be int, got None"),
        ({"train": {"clip": 10**400}}, "train.clip must be float, got 1000"),
        ({"train": {"learning_rate": "fast"}}, "train.learning_rate must be float, got 'fast'"),
        ({"train": {"learning_rate": False}}, "train.learning_rate must be float, got False"),
        ({"train": {"method": 3}}, "train.method must be str, got 3"),
        ({"data": {"augment": 1}}, "data.augment must be bool, got 1"),
        ({"data": {"path": 1}}, "data.path must be str, got 1"),
        ({"data": {"exclude": "edema"}}, "data.exclude must be a list, got 'edema'"),
        ({"data": {"exclude": ["edema", 2]}}, "data.exclude[1] must be str, got 2"),
        ({"data": {"sources": [{"share": 1}]}}, "data.sources[0].path is missing"),
        ({"method": [1]}, "method must be dict, got [1]"),
    ],
)
def test_wrong_names_and_types_are_refused(values: dict[Any, Any], message: str) -> None:
    """An unknown key gets a suggestion, a wrong type the place, what it wants and what it got."""
    with pytest.raises(ConfigError, match=re.escape(message)):
        from_dict(RunConfig, values)


def test_choices_are_listed() -> None:
    """A value that is none of a fixed few is refused with the few."""
    with pytest.raises(ConfigError, match="prediction is 'x0'; choose one of 'eps', 'v'"):
        from_dict(ModelConfig, {"schedule": {"prediction": "x0"}})


@pytest.mark.parametrize(("text", "value"), [("1e-5", 1e-5), ("2.5E3", 2500.0), ("3", 3.0)])
def test_floats_that_yaml_takes_for_something_else(tmp_path: Path, text: str, value: float) -> None:
    """YAML reads 1e-5 as a string and 3 as an int; both become the float that was meant."""
    assert not isinstance(yaml.safe_load(text), float)
    path = write(tmp_path, f"train: {{learning_rate: {text}}}")
    found = load_config(RunConfig, path).train.learning_rate
    assert (found, type(found)) == (value, float)


# --- files and overrides ---


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    """a.b=c replaces one value, or adds it, and leaves its neighbours; the last one counts."""
    path = write(tmp_path, "train: {steps: 5, seed: 3}")
    overrides = ["train.steps=6", "train.steps=7", "train.learning_rate=1e-5"]
    overrides += ["data.exclude=[edema]", "data.path=a=b", "data.split=null", "method.rank=4"]
    run = load_config(RunConfig, path, overrides)
    assert (run.train.steps, run.train.seed, run.train.learning_rate) == (7, 3, 1e-5)
    assert (run.data.exclude, run.data.path, run.data.split) == (("edema",), "a=b", None)
    assert run.method == {"rank": 4}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.steps", "override 'train.steps' must be key=value"),
        ("=3", "override '=3' must be key=value"),
        ("train.stepz=3", "unknown setting 'train.stepz'; did you mean 'steps'?"),
        ("train.steps.x=3", "override 'train.steps.x=3': 'steps' is a value, not a table"),
        ("train.steps=[", "override 'train.steps=[': the value is not YAML"),
        ("train.steps=", "train.steps must be int, got None"),
    ],
)
def test_wrong_overrides_are_refused(tmp_path: Path, override: str, message: str) -> None:
    """An override that is none, or that the settings have no place for, is quoted."""
    path = write(tmp_path, "train: {steps: 5}")
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config(RunConfig, path, [override])


BAD_FILES = {
    "not YAML": (b"train: {steps: 5", "is not YAML"),
    "tabs": (b"train:\n\tsteps: 5", "is not YAML"),
    "python objects": (b"train: !!python/object/apply:os.system ['true']", "is not YAML"),
    "not text": (b"\xff\xfe\x00", "is not YAML"),
    "empty": (b"", "holds no settings"),
    "a list": (b"- 1", "holds no settings"),
    "a key twice": (b"train:\n  seed: 1\n  seed: 6", "is not YAML: 'seed' is set twice.* line 3"),
    "aliases": (b"a: &a [1, 1]\nb: &b [*a, *a]", "is not YAML: an alias.* line 2"),
    "too deep": (b"a: " + b"[" * 10**5, "is not YAML: .*recursion"),
    "no such tag": (b"a: !!bool maybe", "is not YAML"),
    "endless number": (b"a: " + b"1" * 5000, "is not YAML"),
    "one word": (b"train", "holds no settings"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_files_without_settings_are_refused_in_one_line(tmp_path: Path, case: str) -> None:
    """Files that are no YAML table raise ConfigError, one line that names the file."""
    content, message = BAD_FILES[case]
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"run\.yaml {message}") as error:
        load_config(RunConfig, path)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """A missing file, and a folder or a pipe in its place, say so."""
    with pytest.raises(ConfigError, match=r"cannot read the config .*absent\.yaml: No such file"):
        load_config(RunConfig, tmp_path / "absent.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path, tmp_path / "pipe.yaml"):
        with pytest.raises(ConfigError, match="it is no regular file"):
            load_config(RunConfig, path)


def test_a_run_lives_in_a_folder_named_after_its_config(tmp_path: Path) -> None:
    """Without train.out it is runs/<name of the file>; counts of zero are refused."""
    path = write(tmp_path, "train: {steps: 5}")
    assert load_run(path).train.out == "runs/run"
    assert load_run(path, ["train.out=here"]).train.out == "here"
    for setting in ("steps", "batch_size", "accumulate", "save_every"):
        with pytest.raises(ConfigError, match=rf"train\.{setting} must be 1 or more, got 0"):
            load_run(path, [f"train.{setting}=0"])
    with pytest.raises(ConfigError, match=r"data\.phantoms must be 1 or more, got -1"):
        load_run(path, ["data.phantoms=-1"])


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"unet": {"channels": []}}, "one width for each level"),
        ({"unet": {"channels": [32, 64]}}, "unet.attention as many answers"),
        ({"vae": {"channels": []}}, "one width for each level"),
        ({"unet": {"heads": 7}}, "unet: a width of 320 does not split into 7 heads"),
        ({"text": {"heads": 0}}, "text.heads must be from 1 to 65536, got 0"),
        ({"text": {"heads": 5}}, "text: a width of 768 does not split into 5 heads"),
        ({"unet": {"head_width": 640}}, "unet: a width of 320 does not split into 0 heads"),
        ({"vae": {"groups": 31}}, "vae: a width of 128 does not split into 31 groups"),
        ({"vae": {"channels": [32] * 10**6}}, "one width for each level"),
        ({"text": {"width": 96}}, "unet.context_dim is 768 and text.width is 96"),
        ({"vae": {"latent_channels": 8}}, "unet.in_channels is 4 and vae.latent_channels is 8"),
        ({"unet": {"out_channels": 8}}, "unet.out_channels is 8 and unet.in_channels is 4"),
    ],
)
def test_sizes_that_do_not_fit_each_other_are_refused(sizes: dict, message: str) -> None:
    """A model that cannot be built is one line about its config, before anything is built."""
    with pytest.raises(ConfigError, match=message):
        from_dict(ModelConfig, sizes)


def numbers(config: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """The places of the numbers in a dataclass and in those inside it."""
    for name, value in vars(config).items():
        if dataclasses.is_dataclass(value):
            yield from numbers(value, *path, name)
        elif type(value) in (int, float):
            yield (*path, name)


@pytest.mark.parametrize("place", [*numbers(ModelConfig())], ids=".".join)
@pytest.mark.parametrize("number", [-(10**9), 1e300, 10**9, math.nan, math.inf])
def test_no_number_of_a_model_is_without_bounds(place: tuple[str, ...], number: float) -> None:
    """Each size, count and factor of a model's config is refused by name where it is absurd."""
    values: dict[str, Any] = {place[-1]: number}
    for table in reversed(place[:-1]):
        values = {table: values}
    with pytest.raises(ConfigError, match=re.escape(".".join(place))):
        from_dict(ModelConfig, values)


def test_what_json_cannot_keep_stays_text(tmp_path: Path) -> None:
    """A date in YAML is the text that was written, so a message shows it as such."""
    with pytest.raises(ConfigError, match=r"train\.seed must be int, got '2024-01-01'"):
        load_run(write(tmp_path, "train: {seed: 2024-01-01}"))
    for value in ("2024-01-01 10:00:00", "!!binary aGk=", "!!set {a, b}"):
        path = write(tmp_path, f"method: {{rank: {value}}}")
        assert json.dumps(to_dict(load_config(RunConfig, path)))


def test_a_number_that_no_machine_counts_to_is_refused() -> None:
    """By name; it would end in an overflow somewhere else."""
    assert from_dict(TextConfig, {"width": 512}).width == 512
    with pytest.raises(ConfigError, match=r"width must be at most 2\^53, got 1000"):
        from_dict(TextConfig, {"width": 10**30})
