"""Rows of CheXpert@k: their scores, the rows of the paper beside them, and their tables."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import write_reports
from test_bert_files import small_file, write_bert

from ldm.data.labelled_reports import Labelled, read_csv, single_label
from ldm.metrics.retrieval import chexpert_at_k, shared_words
from ldm.report import report_retrieval
from ldm.report.named_encoders import Embedded, NamedEncoder, open_encoder
from ldm.report.report_retrieval import Choice, Row
from ldm.report.text_encoders import choice


@pytest.fixture
def toys(tmp_path: Path) -> Labelled:
    return single_label(read_csv(write_reports(tmp_path / "toys.csv")))


def encoder_of(vectors: np.ndarray) -> SimpleNamespace:
    """In the place of a NamedEncoder: these vectors for any texts."""
    return SimpleNamespace(hows=("mean",), embed=lambda *_: Embedded({"mean": vectors}, 0))


def row(value: float, paper: float | None, label: str = "a") -> Row:
    """A row whose macro average is about `value`."""
    labels = np.arange(40) % 2
    same = labels[:, None] == labels[None]
    noise = np.random.default_rng(0).uniform(size=(40, 40))
    score = chexpert_at_k((same * value + noise).__getitem__, labels, 5, draws=10)
    return Row(label, "eot", score, None, 0, paper)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("words", ("words", "words", None)),
        ("built-in@eot", ("built-in", "built-in", "eot")),
        ("runs/bert", ("bert", "runs/bert", None)),
        ("RadBERT=models/1234@pooler", ("RadBERT", "models/1234", "pooler")),
        ("open_clip:ViT-B-32/openai", ("open_clip:ViT-B-32/openai",) * 2 + (None,)),
        ("a@b/bert", ("bert", "a@b/bert", None)),
    ],
)
def test_a_choice_is_label_encoder_and_vector(text: str, expected: tuple) -> None:
    """LABEL= and @VECTOR may be absent; an @ within a path stays there."""
    assert choice(text) == Choice(*expected)


def test_measured_rows_are_the_metric_on_the_vectors(toys: Labelled, tmp_path: Path) -> None:
    """Words as shared_words, a BERT as the dot products of what it embeds."""
    bert = open_encoder(str(write_bert(tmp_path, small_file())))
    words = report_retrieval.measure(Choice("words", "words", None), None, toys, 3, 0)
    assert words[0].score.macro == chexpert_at_k(shared_words(toys.texts), toys.labels, 3).macro
    rows = report_retrieval.measure(Choice("b", "b", None), bert, toys, 3, 0)
    assert [row.how for row in rows] == ["cls", "mean", "pooler", "projection"]
    one = report_retrieval.measure(Choice("b", "b", "mean"), bert, toys, 3, 0)
    assert [row.how for row in one] == ["mean"]
    expected = chexpert_at_k(bert.embed(toys.texts, ["mean"]).vectors["mean"], toys.labels, 3)
    assert one[0].score.macro == expected.macro
    assert all(row.paper is None for row in [*words, *rows])  # the paper's k is 10


def test_cosines_do_not_know_the_lengths_of_vectors(toys: Labelled) -> None:
    """Vectors of any length give what those of length 1 do; the paper's figures do not compare."""
    rng = np.random.default_rng(0)
    e, lengths = rng.normal(size=(24, 4)), rng.uniform(0.1, 10, size=(24, 1))
    of_one = chexpert_at_k(e / np.linalg.norm(e, axis=1, keepdims=True), toys.labels, 10)
    stretched, choice = encoder_of(e * lengths), Choice("SapBERT", "x", None)
    (found,) = report_retrieval.measure(choice, stretched, toys, 10, 0, cosine=True)
    (plain,) = report_retrieval.measure(choice, stretched, toys, 10, 0)
    assert np.array_equal(found.score.shares, of_one.shares)
    assert not np.array_equal(plain.score.shares, of_one.shares)
    assert (found.paper, plain.paper) == (None, 48.7)


def test_a_cut_is_told_in_the_log_without_a_word_of_the_text(
    toys: Labelled, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """How many of how many, and of which encoder; texts may be patients'."""
    bert = open_encoder(str(write_bert(tmp_path, small_file())))
    rows = report_retrieval.measure(Choice("b", "b", "cls"), bert, toys, 3, 0)
    assert rows[0].cut > 0
    assert f"{rows[0].cut} of 24 impressions are longer than the 6 tokens of b" in caplog.text
    assert "pleural" not in caplog.text


def test_broken_weights_are_named(toys: Labelled) -> None:
    """Of several encoders the line says which gave numbers that are not finite."""
    broken = encoder_of(np.full((len(toys.texts), 2), np.inf))
    with pytest.raises(ValueError, match="magic@mean gives numbers that are not finite"):
        report_retrieval.measure(Choice("magic", "x", None), broken, toys, 3, 0)


def test_the_paper_stands_beside_towers_and_berts_of_the_same_name(
    start: Path, tmp_path: Path
) -> None:
    """A trained CLIP tower has figures, a random one none; a BERT has those of its label."""
    clip, bert = open_encoder(str(start)), open_encoder(str(write_bert(tmp_path, small_file())))

    def paper(label: str, encoder: NamedEncoder, how: str, name: str = "x") -> float | None:
        return report_retrieval.paper_figure(Choice(label, name, None), encoder, how)

    assert [paper("SD", clip, how) for how in clip.hows] == [52.9, 42.8, 7.0]
    assert paper("random", clip, "eot", "random") is None
    assert paper("control", clip, "eot", f"random:{start}") is None
    assert paper("BiomedVLP-CXR-BERT-specialized", bert, "projection") == 50.3
    assert paper("SapBERT-from-PubMedBERT-fulltext", bert, "cls") == 49.1
    assert paper("PubMedBERT", bert, "cls") == 30.8
    assert paper("RadBERT", bert, "projection") is None
    assert paper("MiniLM", bert, "mean") is None


def test_kendalls_tau_of_the_order() -> None:
    """1 for the paper's order, -1 for the reverse, 1/3 for one swap of three, by counting pairs."""
    a, b, c = row(0.0, 10), row(0.2, 20), row(1.0, 30)
    assert a.score.macro.value < b.score.macro.value < c.score.macro.value
    found = report_retrieval.agreement([a, b, c, row(0.1, None)])
    assert found is not None
    assert (found["tau"], found["n"]) == (1, 3)
    assert found["p"] == pytest.approx(1 / 3)  # two of six orders are so far from none
    reverse = [a._replace(paper=3.0), b._replace(paper=2.0), c._replace(paper=1.0)]
    assert report_retrieval.agreement(reverse)["tau"] == -1
    swapped = [a._replace(paper=2.0), b._replace(paper=1.0), c]
    assert report_retrieval.agreement(swapped)["tau"] == pytest.approx(1 / 3)
    assert report_retrieval.agreement([a, b]) is None
    assert report_retrieval.agreement([a, a, a]) is None


def test_tables_say_what_the_rows_hold() -> None:
    """Percent with intervals; the best vector of each label; places beside the paper's."""
    worse, better, other = row(0.0, 10), row(1.0, 30), row(0.2, 20, "b")
    assert report_retrieval.best([worse, better, other]) == {"a": better, "b": other}
    macro = better.score.macro
    cells = report_retrieval.macro_table([worse, better], 5).rows[1]
    assert cells[2] == macro.show(".1f", 100)
    table = report_retrieval.class_table([worse, better])
    assert [row[0] for row in table.rows] == ["Atelectasis", "Cardiomegaly", "macro"]
    assert table.rows[0][1:3] == ("20", "48.7")  # 19 of 39
    assert table.rows[2][4].startswith(f"{100 * macro.value:.1f} (")
    order = report_retrieval.order_table([worse, better, other])
    assert [(row[2], row[4]) for row in order.rows] == [("1", "1"), ("2", "2"), ("3", "3")]
    assert "tau 1.00 (n = 3 rows, p = 0.33)" in order.caption
    assert isinstance(report_retrieval.order_table([worse]), str)
