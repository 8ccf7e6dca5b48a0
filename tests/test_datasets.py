"""Datasets: what is left out, what is kept, and that left stays left."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ldm.clip import tokenizer
from ldm.config import ConfigError, VAEConfig
from ldm.data import DataConfig, DataSource, datasets
from ldm.data.image_sets import UNSEEN, named_phantoms
from ldm.pictures import image_files
from ldm.vae import VAE, Posterior

ROWS = [  # filename, labels, split, quality_flag
    ("a.png", "Effusion|Mass", "train", ""),
    ("b.png", "No Finding", "train", ""),
    ("c.png", "No Finding", "val", ""),
    ("d.png", "Nodule", "train", "odd"),
    ("e.png", "Cardiomegaly", "train", ""),
]


def write_image(path: Path, value: int, size=(40, 32), form: str = "PNG") -> None:
    Image.fromarray(np.full(size, value, np.uint8)).save(path, format=form)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "labels", "split", "quality_flag", "view", "sex", "age"])
        for i, (name, *rest) in enumerate(ROWS):
            writer.writerow([name, *rest, "PA", "F", "61"])
            write_image(tmp_path / "images" / name, 40 * i)
    return tmp_path / "labels.csv"


def settings(path: Path | None, tmp_path: Path, **changes) -> DataConfig:
    given = {"size": 32, "phantoms": 4, "cache": str(tmp_path / "cache"), **changes}
    return DataConfig(path=None if path is None else str(path), **given)


def names(dataset: datasets.Dataset) -> list[str]:
    return [dataset.sample_id(i) for i in range(len(dataset))]


def test_rows_of_other_splits_and_flagged_rows_are_left_out(labels, tmp_path) -> None:
    """Training never sees the val split, nor a row with a quality flag."""
    files = datasets.Files(settings(labels, tmp_path), 1)
    assert names(files) == ["a", "b", "e"]


@pytest.mark.parametrize(
    ("name", "word", "kept"),
    [
        *((name, "pleural effusion", ["b", "d", "e"]) for name in ("Effusion", "pleural effusion")),
        *((name, "lung nodule", ["a", "b", "e"]) for name in ("Nodule", "nodule", "lung nodule")),
    ],
)
def test_excluded_findings_are_never_seen(labels, tmp_path, name, word, kept) -> None:
    """A label of the CSV, the phantom's finding and the captions' words leave out the same, in
    files and in phantoms.
    """
    labels.write_text(labels.read_text().replace("odd", "").replace("Cardiomegaly", "Hernia"))
    config = settings(labels, tmp_path, exclude=(name,), phantoms=40)
    assert names(datasets.Files(config, 1)) == kept
    phantoms = datasets.Phantoms(config, 1)
    assert not any(word in phantoms.caption(i, w) for i in range(40) for w in range(8))
    assert not any(phantoms.findings(i)[word] for i in range(40))


def test_the_same_images_elsewhere_are_the_same_dataset(labels, tmp_path) -> None:
    """The key is that of pixels and labels, so a run resumes after its data were moved or copied;
    another label is another dataset.
    """
    key = datasets.Files(settings(labels, tmp_path), 1).key
    copied = shutil.copytree(labels.parent / "images", tmp_path / "moved" / "images")
    table = shutil.copy(labels, copied.parent)
    os.utime(copied / "a.png", (1, 1))
    assert datasets.Files(settings(Path(table), tmp_path), 1).key == key
    Path(table).write_text(labels.read_text().replace("Cardiomegaly", "Hernia"))
    assert datasets.Files(settings(Path(table), tmp_path), 1).key != key


def test_pixels_survive_the_cache(labels, tmp_path, monkeypatch) -> None:
    """A cached image has the file's grey values, in [-1, 1]; the second opening reads the cache."""
    config = settings(labels, tmp_path)
    first = datasets.Files(config, 1).images(torch.arange(3))
    expected = torch.tensor([0, 40, 160]) / 127.5 - 1
    torch.testing.assert_close(first.mean(dim=(1, 2, 3)), expected, atol=1 / 255, rtol=0)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    monkeypatch.setattr(image_files, "load", None)  # no file is opened again
    again = datasets.Files(config, 1)
    assert torch.equal(again.images(torch.arange(3)), first)


def labelled(labels, tmp_path, **changes) -> datasets.Dataset:
    """Three files of one grey each, whose caption names it."""
    greys = {"a.png": 0, "b.png": 40, "e.png": 160}
    rows = [f"{name},grey {grey}" for name, grey in greys.items()]
    labels.write_text("\n".join(["filename,caption", *rows]))
    return datasets.Files(settings(labels, tmp_path, **changes), 1)


def test_a_batch_has_each_image_with_its_own_caption(labels, tmp_path) -> None:
    """The grey of an image is the one that its caption and its id name."""
    files = labelled(labels, tmp_path, augment=False)
    batch = datasets.draw([(files, 1.0)], 16, torch.Generator().manual_seed(0))
    greys = [f"grey {round((x.mean().item() + 1) * 127.5)}" for x in batch.images]
    assert greys == batch.captions, "an image and its own caption"
    assert batch.ids == [{"0": "a", "40": "b", "160": "e"}[g[5:]] for g in greys]


def test_cached_latents_are_those_of_the_row_with_their_caption(labels, tmp_path) -> None:
    """With 3 variants, row i is of image i // 3, as its caption; mean and logvar as encoded."""
    files = labelled(labels, tmp_path)
    vae = VAE(VAEConfig(image_channels=1, channels=(8,), groups=4, patch=4))
    vae.encode = lambda x: Posterior(*(F.avg_pool2d(x, 4).repeat(1, 4, 1, 1) * k for k in (1, -5)))
    latents = datasets.Latents(files, vae, "x", 3, 32, str(tmp_path / "cache"))
    mean, logvar = latents.images(torch.arange(9)).chunk(2, dim=1)
    for i in range(9):
        grey = int(latents.caption(i, 0).split()[1]) / 127.5 - 1
        assert mean[i].mean().item() == pytest.approx(grey, abs=0.2), "the row of its caption"
    torch.testing.assert_close(logvar, -5 * mean, rtol=2e-3, atol=2e-3, msg="logvar as encoded")


def test_a_changed_file_is_read_anew(labels, tmp_path) -> None:
    """The cache belongs to the files it was made of, even if their size is the same."""
    config = settings(labels, tmp_path)
    path = labels.parent / "images" / "a.png"
    write_image(path, 0, form="BMP")
    files = datasets.Files(config, 1)
    before = path.stat().st_size
    write_image(path, 7, form="BMP")
    assert path.stat().st_size == before
    again = datasets.Files(config, 1)
    assert again.key != files.key
    assert not torch.equal(again.images(torch.tensor([0])), files.images(torch.tensor([0])))


def test_a_folder_takes_captions_from_text_files(tmp_path) -> None:
    """x.png is captioned by x.txt, and by data.caption without one."""
    folder = tmp_path / "films"
    folder.mkdir()
    write_image(folder / "x.png", 10)
    write_image(folder / "y.png", 20)
    (folder / "x.txt").write_text("a knee\n")
    files = datasets.Files(settings(folder, tmp_path, caption="a chest"), 3)
    assert [files.caption(i, 0) for i in range(2)] == ["a knee", "a chest"]
    assert files.images(torch.arange(2)).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "nowhere", "no folder"),
        (lambda p: p / "none.csv", "cannot read"),
        (lambda p: (p / "empty").mkdir() or p / "empty", "holds no images"),
        (lambda p: (p / "x.csv").write_text("a,b\n1,2\n") and p / "x.csv", "column `filename`"),
        (lambda p: (p / "y.csv").write_text("filename\ngone.png\n") and p / "y.csv", "gone.png"),
        (lambda p: (p / "y.csv").write_text("filename,age\n,\n") and p / "y.csv", "names no file"),
    ],
)
def test_bad_sources_are_refused_by_name(tmp_path, make, message) -> None:
    """Each fault of a data source is one line that says which file."""
    with pytest.raises(ConfigError, match=message):
        datasets.Files(settings(make(tmp_path), tmp_path), 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": " "}, "data.path is empty"),
        ({"exclude": ("effuison",)}, "effuison, which nothing is labelled with"),
        ({"path": None, "exclude": ("Mass",)}, "lung mass, which nothing is labelled with"),
        ({"split": "test"}, "none of 5 rows is usable"),
        ({"share": 0}, "data.share"),
    ],
)
def test_bad_settings_are_refused(labels, tmp_path, changes, message) -> None:
    """Settings that would train on other images than asked for are errors."""
    with pytest.raises(ConfigError, match=message):
        datasets.open_datasets(settings(**{"path": labels, "tmp_path": tmp_path, **changes}), 1)


def test_a_share_too_small_for_the_batch_is_refused(labels, tmp_path) -> None:
    """Files that would be in no batch are not left out silently; a small one still draws."""
    sources = datasets.open_datasets(settings(labels, tmp_path, share=0.05), 1)
    with pytest.raises(ConfigError, match=r"data\.share=0\.05 of train\.batch_size=8"):
        datasets.check_shares(sources, 8)
    datasets.check_shares(sources, 16)
    batch = datasets.draw(sources, 8, torch.Generator().manual_seed(0))  # say, for a preview
    assert len(batch.ids) == len(batch.images) == 8


def test_collections_know_their_own_labels_only(labels, tmp_path) -> None:
    """A finding that a collection never labels is unknown there, not absent."""
    lines = labels.read_text().splitlines()
    rows = [f"{lines[0]},source_repo"]
    rows += [f"{line},{'one' if line[0] in 'ab' else 'two'}" for line in lines[1:]]
    labels.write_text("\n".join(rows))
    files = datasets.Files(settings(labels, tmp_path), 1)
    assert files.findings(1) == {"pleural effusion": False, "lung mass": False}
    assert files.findings(2) == {"cardiomegaly": True}


def test_tables_from_other_programs_are_read(labels, tmp_path) -> None:
    """A byte-order mark, short rows and a flag of 0 are no obstacle; a wrong age is counted."""
    header, first, *_ = labels.read_text().splitlines()
    rows = [header, first.replace("train,,", "train,0,"), "b.png,Mass"]
    labels.write_text("\ufeff" + "\n".join(rows), encoding="utf-8")
    files = datasets.Files(settings(labels, tmp_path), 1)
    assert names(files) == ["a", "b"]
    assert all("mass" in files.caption(1, wording) for wording in range(8))
    labels.write_text(
        "\n".join([header, first.replace(",61", ",061Y"), first.replace("61", "old")])
    )
    files = datasets.Files(settings(labels, tmp_path), 1)
    assert [row["age"] for row in files.rows] == ["61", ""]
    assert "1 with unknown age" in files.count


def test_a_caption_cut_by_its_comma_is_refused(labels, tmp_path) -> None:
    """Cells beyond the header are an error, not the lost rest of an unquoted caption."""
    labels.write_text('filename,caption\na.png,"lung xray, no findings"\n')
    assert datasets.Files(settings(labels, tmp_path), 1).caption(0, 0) == "lung xray, no findings"
    labels.write_text("filename,caption\na.png,lung xray, no findings\n")
    with pytest.raises(ConfigError, match=r"labels\.csv, line 2: more cells than the header"):
        datasets.Files(settings(labels, tmp_path), 1)


def test_captions_name_the_labels_alone(labels, tmp_path) -> None:
    """Captions of an effusion name it, those of no finding never do; an empty label is not No
    Finding: its caption is data.caption.
    """
    files = datasets.Files(settings(labels, tmp_path), 1)
    assert "effusion" in files.caption(0, 0)
    assert not any("effusion" in files.caption(1, wording) for wording in range(20))
    labels.write_text(labels.read_text().replace("No Finding", ""))
    files = datasets.Files(settings(labels, tmp_path, caption="a chest"), 1)
    assert files.caption(1, 0) == "a chest"


def test_a_broken_image_is_named_at_once(labels, tmp_path) -> None:
    """A damaged file is named before training, and a half-made cache never taken for a whole."""
    (labels.parent / "images" / "b.png").write_bytes(b"no image")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"b\.png"):
            datasets.Files(settings(labels, tmp_path), 1)


def test_batches_keep_the_share_and_depend_on_the_generator_alone(labels, tmp_path) -> None:
    """Of 8 images with share 0.25, 2 are files; the same generator gives the same batch."""
    sources = datasets.open_datasets(settings(labels, tmp_path, share=0.25), 1)
    one, two = (datasets.draw(sources, 8, torch.Generator().manual_seed(3)) for _ in range(2))
    assert [name.startswith("phantom") for name in one.ids] == [False] * 2 + [True] * 6
    assert one.captions == two.captions
    assert torch.equal(one.images, two.images)


def test_phantoms_of_any_region_are_a_dataset(tmp_path) -> None:
    """data.path=phantoms:N:SEED:settings, and so a source, holds that set and nothing else."""
    named = "phantoms:6:3:region=hand+knee,view=lateral"
    config = DataConfig(path=named, size=32, cache=str(tmp_path), exclude=("fracture",))
    ((dataset, share),) = datasets.open_datasets(config, 1)
    assert (len(dataset), share) == (6, 1.0)
    for index in range(6):
        assert dataset.sample_id(index) == f"phantom-{3 + index}"
        assert any(word in dataset.caption(index, 0) for word in ("hand", "knee"))
        assert not dataset.findings(index).get("fracture")
    sources = (DataSource(named, 1.0), DataSource("phantoms:4:0:region=head", 3.0))
    config = DataConfig(sources=sources, size=32, cache=str(tmp_path))
    assert [(len(d), s) for d, s in datasets.open_datasets(config, 1)] == [(6, 0.25), (4, 0.75)]
    with pytest.raises(ConfigError, match="goes with path and share alone"):
        datasets.open_datasets(DataConfig(sources=(DataSource(named, where={"sex": "F"}),)), 1)
    with pytest.raises(ConfigError, match="no such region of phantoms: 'kne'"):
        datasets.open_datasets(DataConfig(path="phantoms:4:0:region=kne"), 1)


FINDINGS = "FINDINGS: " + "The lungs are clear and the heart is of normal size. " * 12
REPORT = f"{FINDINGS}\nIMPRESSION: No effusion. Small nodule, {'then smaller ' * 50}nodules."


def test_long_captions_are_counted_and_never_cut_in_silence(labels, tmp_path) -> None:
    """They are cut and counted, refused, or taken by sentences of the impression, each short."""
    labels.write_text(f'filename,caption\na.png,"{REPORT}"\nb.png,a chest\n')
    cut = datasets.Files(settings(labels, tmp_path), 1)
    assert "1 captions over 77 tokens: cut" in cut.count
    assert cut.caption(0, 3) == REPORT
    with pytest.raises(ConfigError, match="1 captions have over 77 tokens, first that of a;"):
        datasets.Files(settings(labels, tmp_path, long_captions="error"), 1)
    files = datasets.Files(settings(labels, tmp_path, long_captions="sentences"), 1)
    drawn = [files.caption(0, wording) for wording in range(30)]
    assert len(set(drawn)) > 2
    assert " ".join(dict.fromkeys(drawn)) == " ".join(REPORT.split("IMPRESSION: ")[1].split())
    assert all(len(tokenizer().encode(text)) <= 75 for text in drawn)
    assert files.caption(1, 5) == "a chest"
    assert (
        "captions"
        not in datasets.Files(
            settings(labels, tmp_path), 1, DataSource(str(labels), captions="templates")
        ).count
    )


def test_training_sees_no_phantom_that_is_measured_on(tmp_path) -> None:
    """phantoms:N begins at data.phantom_seed where one trains, else beyond what training sees."""
    config = DataConfig(size=16, phantom_seed=5, cache=str(tmp_path))
    assert [p.seed for p in datasets.Phantoms(config, 1, "phantoms:2").phantoms] == [5, 6]
    assert [p.seed for p in datasets.Phantoms(config, 1, "phantoms:2:7").phantoms] == [7, 8]
    assert named_phantoms("phantoms:2")[0].seed >= UNSEEN
