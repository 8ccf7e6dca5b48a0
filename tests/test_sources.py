"""Several sources: what is held out, who is drawn how often, and where padding is."""

import csv
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ldm.config import ConfigError, from_dict
from ldm.data import DataConfig, DataSource, HoldOut, sources
from ldm.data.augmentation import augment_masked
from ldm.data.datasets import Latents, check_shares, collect, draw, open_datasets
from ldm.data.image_sets import open_set
from ldm.loss import diffusion_loss
from ldm.pictures import image_files

REGIONS = {"knee": 60, "hand": 30, "elbow": 9}  # images
ROWS = [
    {"filename": f"{region}{i}.png", "region": region, "patient_id": f"{region[0]}{i // 3}"}
    for region, count in REGIONS.items()
    for i in range(count)
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["filename", "region", "patient_id", "split", "labels"])
        writer.writeheader()
        for i, row in enumerate(ROWS):
            writer.writerow({**row, "split": "val" if row["filename"] == "knee0.png" else "train"})
            grey = np.full((20, 40), 40 + 2 * i, np.uint8)
            Image.fromarray(grey).save(tmp_path / "images" / row["filename"])
    return tmp_path / "labels.csv"


RULE = HoldOut("region", least=5, share=0.2)


def config(table: Path, **changes) -> DataConfig:
    source = DataSource(str(table), group="region", hold_out=RULE)
    given = {"sources": (source,), "size": 16, "cache": str(table.parent / "cache"), **changes}
    return DataConfig(**given)


def files(rows: list[dict[str, str]]) -> set[str]:
    return {row["filename"] for row in rows}


def test_enough_of_each_class_is_held_out_by_patient(table) -> None:
    """At least max(least, share) of each class, whole patients, and all of another split."""
    data = config(table)
    train, held, _ = sources.source_rows(data.sources[0], data)
    assert len(train) + len(held) == len(ROWS)
    assert not {row["patient_id"] for row in train} & {row["patient_id"] for row in held}
    counts = Counter(row["region"] for row in held)
    for region, goal in {"knee": 12, "hand": 6, "elbow": 5}.items():
        assert goal <= counts[region] <= goal + 3  # patients have three images
    assert {"knee0.png", "knee1.png", "knee2.png"} <= files(held)


def test_the_rule_depends_on_neither_order_nor_where(table) -> None:
    """Rows in another order, or fewer of them asked for, hold out the same images."""
    data = config(table)
    source = data.sources[0]
    held = files(sources.source_rows(source, data)[1])
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], *reversed(lines[1:])]))
    assert files(sources.source_rows(source, data)[1]) == held
    some = replace(source, where={"region": ["knee", "elbow"]})
    train, fewer, _ = sources.source_rows(some, data)
    assert files(fewer) == {name for name in held if not name.startswith("hand")}
    assert {row["region"] for row in train} == {"knee", "elbow"}


def test_groups_are_drawn_by_a_power_of_their_size(table) -> None:
    """With balance 0 each group is as likely as another; with 1, each image."""
    for balance in (0.0, 0.5, 1.0):
        datasets = open_datasets(config(table, balance=balance), 1)
        ids = draw(datasets, 6000, torch.Generator().manual_seed(0)).ids
        drawn = Counter("".join(c for c in name if c.isalpha()) for name in ids)
        sizes = Counter(row["region"] for row in datasets[0][0].rows)
        total = sum(n**balance for n in sizes.values())
        for region, n in sizes.items():  # 4 standard errors of a share of 6,000
            share = n**balance / total
            assert abs(drawn[region] / 6000 - share) < 4 * (share * (1 - share) / 6000) ** 0.5


def test_sources_and_phantoms_have_their_shares(table) -> None:
    """Shares of sources are relative; data.share is theirs together."""
    knees, hands = {"region": "knee"}, {"region": ["hand"]}
    two = tuple(DataSource(str(table), share=s, where=w) for s, w in ((3, knees), (1, hands)))
    datasets = open_datasets(config(table, sources=two, share=0.8, phantoms=2, size=32), 1)
    ids = draw(datasets, 20, torch.Generator().manual_seed(0)).ids
    assert Counter(name[0] for name in ids) == {"k": 12, "h": 4, "p": 4}
    with pytest.raises(ConfigError, match=r"train\.batch_size=2 one of data\.sources has no image"):
        check_shares(datasets, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "x"}, "goes without data.path"),
        ({"exclude": ("Mass",)}, "goes without data.path and data.exclude"),
        ({"share_of_source": 0.0}, "shares must be above 0"),
        ({"where": {"organ": "knee"}}, "has no column 'organ'; there are filename, "),
        ({"where": {"region": "nose"}}, "no row to train on where"),
        ({"group": "organ"}, "has no column 'organ'"),
    ],
)
def test_bad_sources_are_refused(table, changes, message) -> None:
    """In one line, before any training."""
    share = changes.pop("share_of_source", 1.0)
    own = {name: changes.pop(name) for name in ("where", "group") if name in changes}
    with pytest.raises(ConfigError, match=message):
        open_datasets(
            config(table, sources=(DataSource(str(table), share=share, **own),), **changes), 1
        )


def test_padding_keeps_all_of_an_image_and_is_masked(table) -> None:
    """An image of 2 x 1 lies in the middle of a square; the mask moves as augmentation moves it."""
    data = config(table, fit="pad", augment=False, size=64)
    [(dataset, _)] = open_datasets(data, 1)
    batch = draw([(dataset, 1.0)], 5, torch.Generator().manual_seed(0))
    there = torch.zeros(1, 64, 64, dtype=torch.bool)
    there[:, 16:48] = True
    assert (batch.masks == there).all()
    assert (batch.images[~batch.masks] == -1).all()
    assert (batch.images[batch.masks] > -0.75).all()
    moved, mask = augment_masked(batch.images, batch.masks, torch.Generator().manual_seed(1))
    assert not torch.equal(mask, batch.masks)
    grey = moved.flatten(1).amax(1)[:, None, None, None]
    middle = (grey + moved.flatten(1).amin(1)[:, None, None, None]) / 2
    assert torch.equal(mask, moved > middle)


def test_files_can_be_stretched(table) -> None:
    """An image of any shape fills the square, and nothing is masked."""
    wide = np.tile(np.linspace(50, 250, 40).astype(np.uint8), (20, 1))
    for row in ROWS:
        Image.fromarray(wide).save(table.parent / "images" / row["filename"])
    found = {}
    for fit in ("crop", "stretch"):
        [(dataset, _)] = open_datasets(config(table, fit=fit, augment=False), 1)
        batch = collect([(dataset, torch.tensor([0]))], torch.Generator().manual_seed(0))
        assert batch.masks is None
        found[fit] = batch.images[0, 0, 8]
    whole = image_files.resize(image_files.load(dataset.rows[0]["path"]), 16, 16)[0, 8]
    torch.testing.assert_close(found["stretch"], whole, atol=0.01, rtol=0)
    assert found["crop"][0] > found["stretch"][0] + 0.3  # the dark side is cut off


def test_latents_know_their_cells_of_padding(table, tiny) -> None:
    """A cell with any pixel of the image counts, also after the file went through the cache."""
    [(dataset, _)] = open_datasets(config(table, fit="pad", augment=False, size=32), 3)
    latents = Latents(dataset, tiny.vae, "hash", 2, 32, str(table.parent / "cache"))
    place = torch.tensor([3, 1])
    cells = torch.nn.functional.max_pool2d(dataset.masks(place).float(), tiny.vae.config.factor)
    for _ in range(2):
        assert torch.equal(latents.masks(place), cells.bool())
        assert latents.images(place).shape[1] == 2 * tiny.vae.config.latent_channels
    assert 0 < cells.mean() < 1
    assert torch.equal(latents.weights, dataset.weights)


def test_the_diffusion_loss_does_not_see_padding(tiny) -> None:
    """Errors under the mask change nothing, and the mean is over the rest."""
    x0, eps = torch.randn(2, 2, tiny.config.unet.in_channels, 8, 8)
    mask = torch.ones(2, 1, 8, 8, dtype=torch.bool)
    mask[0, :, :4] = False
    found = []
    for beyond in (0.0, 5.0):

        def network(x, t, context, beyond=beyond):
            return torch.where(mask, 0.0, beyond).expand_as(x)

        t = torch.tensor([3, 500])
        found.append(diffusion_loss(network, tiny.schedule, x0, eps, t, None, mask))
    assert torch.equal(*found)
    error = tiny.schedule.target(x0, eps, t).square()
    expected = torch.stack([error[0, :, 4:].mean(), error[1].mean()])
    torch.testing.assert_close(found[0], expected)


def test_the_rows_can_be_written_and_measured(table) -> None:
    """The command writes one CSV, whose held-out rows are those that no training sees."""
    path, out = table.parent / "run.yaml", table.parent / "out.csv"
    source = {"path": str(table), "hold_out": {"of": "region", "least": 5, "share": 0.2}}
    listed = [source, {"path": "phantoms:4:0:region=knee"}]
    path.write_text(yaml.safe_dump({"data": {"sources": listed}, "train": {"steps": 1}}))
    command = [sys.executable, "-m", "ldm.data.sources", str(path), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert "1 sources of phantoms have no rows and are left out" in done.stderr
    data = from_dict(DataConfig, {"sources": [source]}, "data")
    train, held, _ = sources.source_rows(data.sources[0], data)
    for split, rows in (("train", train), ("held_out", held)):
        asked = open_set(f"{out}@{split}")
        ids = {asked.sample_id(i) for i in range(len(asked))}
        assert ids == {Path(row["filename"]).stem for row in rows}
