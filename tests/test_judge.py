"""The judge: what it is taught, how its batches are balanced, and that it learns what is there."""

import csv
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ldm.config import ConfigError
from ldm.data import DataConfig, attributes
from ldm.data.datasets import Phantoms
from ldm.data.image_sets import named_phantoms
from ldm.judging.judge import Judge, JudgeConfig, load_judge
from ldm.training.methods.judge_training import balance, targets
from ldm.training.trainer import Trainer
from ldm.training.training_run import build_method, load_run
from ldm.weights import adapters

EFFUSION = "pleural effusion"
FILMS = [  # collection, labels
    *[("east", "Effusion")] * 3,
    *[("east", "No Finding")] * 9,
    *[("west", "Effusion|Mass")] * 6,
    *[("west", "Nodule")] * 2,
    *[("north", "No Finding")] * 20,  # one kind only: cannot be balanced
]


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Films whose lower third is white where there is fluid."""
    with (tmp_path / "films.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "labels", "source_repo"])
        for i, (collection, labels) in enumerate(FILMS):
            pixels = np.random.default_rng(i).integers(60, 120, (32, 32), np.uint8)
            if "Effusion" in labels:
                pixels[20:] = 240
            Image.fromarray(pixels).save(tmp_path / f"{i}.png")
            writer.writerow([f"{i}.png", labels, collection])
    return tmp_path / "films.csv"


def config(tmp_path: Path, films: Path, **train) -> Path:
    network = {"findings": [EFFUSION, "lung nodule"], "size": 32, "channels": 8, "growth": 8}
    content = {
        "train": {"method": "judge", "steps": 40, "batch_size": 16, "out": str(tmp_path / "run")},
        "data": {"path": str(films), "size": 32, "augment": False, "cache": str(tmp_path / "c")},
        "method": {"network": {**network, "blocks": [2, 2]}},
    }
    content["train"] |= {"learning_rate": 3e-3, "warmup": 2, "ema": 0.9, **train}
    (tmp_path / "judge.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "judge.yaml"


def test_what_a_source_does_not_know_is_not_taught() -> None:
    """1 there, 0 not there, NaN unknown: a label that a source never gives is no negative."""
    found = targets(
        [{EFFUSION: True}, {EFFUSION: False, "lung mass": True}, {}], [EFFUSION, "lung mass"]
    )
    expected = torch.tensor([[1, math.nan], [0, 1], [math.nan, math.nan]])
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_unknown_labels_leave_no_trace_in_the_gradient(tmp_path, films) -> None:
    """The last layer's row of a finding that nobody labelled gets no gradient."""
    names = "method.network.findings=[Effusion, Mass]"  # the CSV's spelling will do
    method = build_method(load_run(config(tmp_path, films), [names]))
    batch = method.draw_batch(8, torch.Generator().manual_seed(0))
    batch = batch._replace(findings=[{EFFUSION: row[EFFUSION]} for row in batch.findings])
    loss, _ = method.loss(batch, torch.Generator())
    loss.backward()
    gradient = method.module.out.weight.grad
    assert gradient[0].abs().max() > 0
    assert gradient[1].abs().max() == 0


def test_batches_are_balanced_within_each_collection(tmp_path, films) -> None:
    """Half of what comes from each collection has fluid; where all or none has, none is drawn."""
    method = build_method(load_run(config(tmp_path, films)))
    batch = method.draw_batch(4000, torch.Generator().manual_seed(0))
    seen = Counter(FILMS[int(name)] for name in batch.ids)
    share = {c: sum(n for (place, _), n in seen.items() if place == c) for c in ("east", "west")}
    assert sum(share.values()) == 4000
    assert share["east"] == pytest.approx(4000 * 12 / 20, abs=150)  # 5 standard deviations
    for place in share:
        fluid = sum(n for (c, labels), n in seen.items() if c == place and "Effusion" in labels)
        assert fluid == pytest.approx(share[place] / 2, abs=130)
    one, other = (method.draw_batch(9, torch.Generator().manual_seed(5)).ids for _ in range(2))
    assert one == other


def test_phantoms_know_their_own_findings_only(tmp_path) -> None:
    """A phantom says yes or no to each of its findings and nothing of, say, a hiatal hernia."""
    phantoms = Phantoms(DataConfig(phantoms=40, cache=str(tmp_path)), 1)
    assert not any("hiatal hernia" in phantoms.findings(i) for i in range(40))
    ((with_fluid, without),) = balance(phantoms, EFFUSION)
    assert len(with_fluid) + len(without) == 40
    assert all(phantoms.phantoms[i].finding(EFFUSION) for i in with_fluid)


def test_attributes_are_taught_where_a_source_knows_them(tmp_path) -> None:
    """Region, modality, view, beam, sex and age band, of rows and phantoms alike."""
    row = {"region": "knee", "modality": "MRI", "view": "lateral", "age": "17", "sex": "F"}
    assert attributes.of_row(row) == {**row, "age": "child"}
    film = {"view": "AP", "age": "", "collection": "a paediatric one"}
    chest = {"region": "chest", "modality": "x-ray", "view": "frontal", "beam": "AP"}
    assert attributes.of_row(film) == {**chest, "age": "child", "collection": "a paediatric one"}
    (wrist,) = named_phantoms("phantoms:1:7:region=wrist,modality=xray,view=lateral")
    known = attributes.of_phantom(wrist)
    assert known == {
        **{"region": "hand", "modality": "x-ray", "view": "lateral"},
        **{"sex": wrist.sex, "age": attributes.age_band(wrist.age)},
    }
    names = ["region=hand", "region=knee", "beam=PA", "edema"]
    assert attributes.told(known, names) == {"region=hand": True, "region=knee": False}


def test_a_judge_of_attributes_draws_as_the_sources_say(tmp_path) -> None:
    """method.balance empty: each source by its share; its names are asked of each image."""
    run = config(tmp_path, tmp_path / "none.csv")
    names = "[lung nodule, region=knee, view=lateral]"
    sources = "[{path: 'phantoms:8', share: 3}, {path: 'phantoms:8:0:region=knee', share: 1}]"
    overrides = ["method.balance=''", f"method.network.findings={names}", "data.path=null"]
    method = build_method(load_run(run, [*overrides, f"data.sources={sources}"]))
    batch = method.draw_batch(16, torch.Generator().manual_seed(0))
    told = targets(batch.findings, method.options.network.findings)
    assert told[:, 1].tolist() == [0.0] * 12 + [1.0] * 4
    assert told[:12, 0].isfinite().all()
    assert told[12:, 0].isnan().all()
    assert torch.isfinite(method.loss(batch, torch.Generator().manual_seed(0))[0])


def test_the_judge_learns_and_its_file_opens_again(tmp_path, films) -> None:
    """Trained on films with a white base it knows others; the file gives the same verdicts."""
    run = load_run(config(tmp_path, films))
    method = build_method(run)
    Trainer(run, method).fit()
    judge = load_judge(tmp_path / "run")
    x = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.4 - 0.5
    x[:4, :, 20:] = 0.9
    with torch.no_grad():
        logits = judge(x)
    assert logits[:4, 0].min() > logits[4:, 0].max()
    assert judge.config.findings == (EFFUSION, "lung nodule")
    with pytest.raises(ValueError, match=r"cannot open .* as a judge"):
        load_judge(tmp_path / "judge.yaml")


def test_a_verdict_depends_on_the_image_alone() -> None:
    """Not on the batch, nor on exposure; a range other than [-1, 1] is refused."""
    judge = Judge(JudgeConfig()).eval()
    x = torch.rand(3, 1, 128, 128, generator=torch.Generator().manual_seed(0)) - 0.5
    with torch.no_grad():
        torch.testing.assert_close(judge(x)[1:2], judge(x[1:2]), atol=1e-5, rtol=0)
        torch.testing.assert_close(judge(x), judge(0.5 * x + 0.2), atol=0.02, rtol=0)
        with pytest.raises(ValueError, match=r"\[-1, 1\], got \[3, 1, 128, 128\] in \["):
            judge(255 * x)
    assert sum(p.numel() for p in judge.parameters()) * 2 < 6e6  # bytes in half precision


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.size=64", r"data\.size is 64, method\.network\.size 32"),
        ("method.balance=edema", "both with and without 'pulmonary edema'"),
        ("method.network.findings=[goitre]", "no image here says whether it shows goitre"),
        ("method.network.findings=[]", "findings"),
        *((f"method.smoothing={wrong}", r"method\.smoothing") for wrong in ("0.5", "-0.1", ".nan")),
        ("model.path=/nowhere", "model.path is set, but method judge starts from random weights"),
        ("train.checkpointing=true", "train.checkpointing is about the U-Net"),
        ("train.attention=fused", "train.attention is about the U-Net"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, films, override, message) -> None:
    """Another size than the network's, a finding that no collection has both ways, nothing to look
    for, labels turned round, and what the judge would ignore.
    """
    with pytest.raises(ConfigError, match=message):
        build_method(load_run(config(tmp_path, films), [override]))


@pytest.mark.parametrize("forged", [{"groups": 0}, {"channels": 2**63}, {"findings": []}], ids=str)
def test_forged_sizes_of_a_judge_are_refused_at_once(tmp_path: Path, forged: dict) -> None:
    """In one line, before any memory is taken."""
    adapters.save(tmp_path / "judge.safetensors", "judge", {}, forged)
    with pytest.raises(ValueError, match=r"cannot open the judge .*(must|split)"):
        load_judge(tmp_path / "judge.safetensors")
