"""A BERT of our own: what is hidden, how rows are made and drawn, that it learns and resumes."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from conftest import fit

import train as script
from benchmarks.bert import guess, measure
from ldm.config import ConfigError
from ldm.data import DataConfig
from ldm.system import cli
from ldm.text.bert_files import load_bert
from ldm.text.pooling import pad
from ldm.text.wordpiece import SPECIAL, WordPiece
from ldm.training.methods import bert_pretraining as training
from ldm.training.methods.bert_pretraining import MASK, TrainBert, encode_rows, hide
from ldm.training.training_run import RunConfig, load_run

VOCAB = [*SPECIAL, *"abcdefghij", *(f"##{letter}" for letter in "abcdefghij")]
TINY = {"vocab_size": 300, "context_length": 16, "width": 32, "layers": 1, "heads": 2}


def write_run(folder: Path, name: str = "run", method: dict | None = None, **train) -> Path:
    """A config of a tiny BERT on the captions of 40 phantoms."""
    settings = {"steps": 60, "batch_size": 16, "learning_rate": 3e-3, "warmup": 5, "ema": 0.9}
    config = {
        "train": {"method": "bert", "out": str(folder / name), **settings, **train},
        "data": {"phantoms": 40},
        "method": {"network": {**TINY, "feedforward": 32}, **(method or {})},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return load_run(write_run(tmp_path_factory.mktemp("bert")))


def lines(count: int, length: int) -> torch.Tensor:
    """[CLS], `length` ordinary tokens, [SEP], two [PAD]; in each row one [UNK]."""
    g = torch.Generator().manual_seed(1)
    ids = torch.randint(len(SPECIAL), 1000, (count, length + 4), generator=g)
    ids[:, 0], ids[:, -3], ids[:, -2:], ids[:, 5] = 2, 3, 0, 1
    return ids


@pytest.mark.parametrize(("length", "wanted"), [(11, 2), (41, 6), (4 + 1, 1)])
def test_fifteen_in_a_hundred_are_hidden_and_never_special(length: int, wanted: int) -> None:
    """In each row 15 % of the ordinary tokens, rounded, one at least; the rest is untouched."""
    ids = lines(200, length)
    shown, hidden = hide(ids, 1000, torch.Generator().manual_seed(0))
    assert (hidden.sum(dim=1) == wanted).all()
    assert not (hidden & (ids < len(SPECIAL))).any()
    assert torch.equal(shown[~hidden], ids[~hidden])


def test_of_the_hidden_most_are_masked_some_random_some_stay() -> None:
    """80, 10 and 10 %, within four standard deviations of 18,000; no random token is special."""
    ids = lines(3000, 41)
    shown, hidden = hide(ids, 1000, torch.Generator().manual_seed(0))
    before, after = ids[hidden], shown[hidden]
    n = len(before)
    random = after[(after != before) & (after != MASK)]
    for count, share in (
        (int((after == MASK).sum()), 0.8),
        (len(random), 0.1),
        (int((after == before).sum()), 0.1),
    ):
        assert abs(count - share * n) < 4 * (n * share * (1 - share)) ** 0.5
    assert random.min() >= len(SPECIAL)
    assert len(random.unique()) > 700  # of 995


def test_every_place_is_hidden_as_often_as_any_other() -> None:
    """Places of 3,000 rows are hidden alike, within five standard deviations."""
    ids = lines(3000, 41)
    _, hidden = hide(ids, 1000, torch.Generator().manual_seed(0))
    often = hidden.sum(dim=0)[(ids >= len(SPECIAL)).all(dim=0)].float()
    share = 6 / 40
    assert ((often - 3000 * share).abs() < 5 * (3000 * share * (1 - share)) ** 0.5).all()


def test_a_long_text_becomes_several_rows_and_loses_nothing() -> None:
    """Rows of at most 6 tokens, each with its two special ones; joined they are the text."""
    wordpiece = WordPiece(VOCAB)
    rows = encode_rows(wordpiece, ["abc def ghij"], context=6)
    assert sorted(map(len, rows)) == [4, 6, 6]
    whole = wordpiece.encode("abc def ghij")[1:-1]
    assert sorted(i for row in rows for i in row[1:-1]) == sorted(whole)
    assert {(row[0], row[-1]) for row in rows} == {(wordpiece.start, wordpiece.end)}


def test_rows_without_a_token_to_guess_are_left_out() -> None:
    """Unknown words alone teach nothing, and would make the mean over no token NaN."""
    wordpiece = WordPiece(VOCAB)
    assert encode_rows(wordpiece, ["xyz", "[MASK]", "\u200b", "a xyz"], context=6) == [[2, 5, 1, 3]]


def test_all_rows_are_drawn_alike(run: RunConfig) -> None:
    """Over 4,000 batches no row comes more or less often than chance allows; a batch is even."""
    method = TrainBert(run)
    rows, _ = method.rows[0]
    drawn, spread = torch.zeros(len(rows)), []
    for step in range(4000):
        batch = method.draw_batch(4, torch.Generator().manual_seed(step))
        for name in batch.ids:
            drawn[int(name.split()[1])] += 1
        lengths = (batch.images != 0).sum(dim=1)
        spread.append((lengths.max() - lengths.min()).item())
    expected = 4000 * 4 / len(rows)
    # rows of one batch are neighbours, so counts vary a little more than independent ones
    assert ((drawn - expected).abs() < 5 * expected**0.5).all()
    # four of all rows would be 9.8 tokens apart on average
    assert sum(spread) / 4000 < 4


def test_shares_are_kept_in_every_batch(tmp_path: Path) -> None:
    """Of 8 rows with share 0.25, 2 are of the table."""
    table = tmp_path / "captions.csv"
    table.write_text("caption\n" + "".join(f"Zebra {i}\n" for i in range(100)))
    path = write_run(tmp_path)
    run = load_run(path, [f"data.path={table}", "data.share=0.25"])
    method = TrainBert(run)
    zebra = method.wordpiece.ids["zebra"]
    batch = method.draw_batch(8, torch.Generator().manual_seed(0))
    assert (batch.images == zebra).any(dim=1).tolist() == [True] * 2 + [False] * 6


def test_the_loss_is_that_of_the_hidden_tokens_alone(run: RunConfig) -> None:
    """A network that is sure of the right token everywhere has loss 0; of a wrong one, not."""
    method = TrainBert(run)
    batch = method.draw_batch(8, torch.Generator().manual_seed(0))
    _, hidden = hide(batch.images, 300, torch.Generator().manual_seed(1))
    for shift, loss, accuracy in ((0, 0.0, 1.0), (1, 50.0, 0.0)):
        right = (batch.images[hidden] + shift) % method.module.config.vocab_size
        sure = torch.nn.functional.one_hot(right, method.module.config.vocab_size) * 50.0
        method.module.guess = lambda states, sure=sure: sure
        found, figures = method.loss(batch, torch.Generator().manual_seed(1))
        assert found.item() == pytest.approx(loss, abs=1e-6)
        assert figures["accuracy"] == accuracy


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(write_run(tmp_path_factory.mktemp("trained"))).parent


def test_the_loss_falls_and_the_folder_opens(trained: Path) -> None:
    """The last ten losses are below the first ten; load_bert finds network and words."""
    losses = [json.loads(line)["loss"] for line in (trained / "log.jsonl").open()]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    bert, wordpiece = load_bert(trained)
    assert bert.config.masked_lm
    assert bert.config.vocab_size == wordpiece.size < 300  # phantoms have no more words
    assert wordpiece.unknown not in wordpiece.encode("phantom lung xray with pleural effusion")


def test_half_precision_is_the_same_network_rounded(tmp_path: Path, trained: Path) -> None:
    """method.dtype=float16 changes the file, not the training."""
    half = fit(write_run(tmp_path, method={"dtype": "float16"})).parent
    whole, rounded = load_bert(trained)[0].state_dict(), load_bert(half)[0].state_dict()
    assert all(torch.equal(whole[name].half().float(), rounded[name]) for name in whole)


def test_a_weight_that_half_precision_makes_infinite_is_refused(tmp_path: Path) -> None:
    """The weights are finite, those in the file would not be; no file is written."""
    method = TrainBert(load_run(write_run(tmp_path, method={"dtype": "float16"})))
    next(method.module.parameters()).data[0] = 1e5
    with pytest.raises(FloatingPointError, match="too large for float16: begin again with float32"):
        method.save(tmp_path / "model.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_an_interrupted_run_ends_in_the_same_bits(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at step 25, the same command gives the files of the whole run."""
    path = write_run(tmp_path, save_every=10)
    original, seen = TrainBert.loss, []

    def stop(self, batch, generator):
        seen.append(1)
        if len(seen) > 25:
            raise KeyboardInterrupt
        return original(self, batch, generator)

    monkeypatch.setattr(TrainBert, "loss", stop)
    with pytest.raises(KeyboardInterrupt):
        fit(path)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    monkeypatch.undo()
    cut = fit(path).parent
    for name in ("model.safetensors", "vocab.txt", "config.json"):
        assert (cut / name).read_bytes() == (trained / name).read_bytes()


def test_guesses_are_those_of_the_network_at_hidden_places(trained: Path) -> None:
    """Each guess is the best token there, with all that is hidden behind [MASK], row by row."""
    bert, wordpiece = load_bert(trained)
    rows = encode_rows(wordpiece, [f"phantom lung xray with {w}" for w in ("edema", "nodule")], 16)
    for row, (shown, guesses) in zip(rows, guess(bert, rows), strict=True):
        assert shown == [MASK if place in guesses else token for place, token in enumerate(row)]
        ids, mask = pad([shown], wordpiece.pad)
        with torch.inference_mode():
            best = bert.guess(bert(ids, mask))[0].argmax(dim=-1).tolist()
        assert guesses
        assert guesses == {place: best[place] for place in guesses}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.network.vocab_size=20", "a vocabulary of 20 tokens cannot be learned"),
        ("method.network.context_length=2", "context_length must be from 3 to"),
        ("method.network.heads=5", "does not split into 5 heads"),
        ("method.netwrok.width=8", "did you mean 'network'"),
        ("model.path=weights", "model.path is set, but"),
        ("method.dtype=float8", "method.dtype is 'float8'"),
        ("data.path=/nowhere.csv", "cannot read /nowhere.csv"),
    ],
)
def test_bad_settings_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    """Settings that cannot be trained end in one line and status 2; nothing is written."""
    path = write_run(tmp_path)
    code = cli.run(lambda: script.main([str(path), override]), "train.py")
    assert code == 2
    error = capsys.readouterr().err.splitlines()
    assert message in error[-1]
    assert not (tmp_path / "run").exists()


def test_other_words_are_refused_on_resume(tmp_path: Path, monkeypatch) -> None:
    """A run folder goes on only with the vocabulary it was begun with."""
    path = write_run(tmp_path, steps=3)
    fit(path)
    learned = training.learn
    monkeypatch.setattr(training, "learn", lambda *a: [*SPECIAL, *reversed(learned(*a)[5:])])
    with pytest.raises(ConfigError, match="was begun with vocabulary="):
        fit(path)


def test_the_shipped_bert_knows_held_out_captions() -> None:
    """Of held-out phantom captions it guesses more than what is most frequent at each place."""
    bert, wordpiece = load_bert(Path(__file__).parents[1] / "weights" / "bert")
    shares = measure(bert, wordpiece, DataConfig(phantoms=2000))
    for way in ("most frequent token", "most frequent at its place"):
        assert shares["this BERT"].low > shares[way].high
