"""Cells in any spelling: views, sexes, ages, labels; and captions that say them."""

import json
from pathlib import Path

import pytest

from ldm.data.film_cells import read_cells
from ldm.data.phantom.captions import caption_from_labels
from ldm.data.row_captions import caption

# {column: {cell: as we spell it; None where it is not understood}}
CASES = json.loads(Path(__file__).with_name("film_cases.json").read_text(encoding="utf-8"))
SPELLED = CASES["cells"].items()


@pytest.mark.parametrize(
    ("name", "cell", "wanted"),
    [(name, cell, wanted) for name, cells in SPELLED for cell, wanted in cells.items()],
)
def test_cells_are_read_in_any_spelling(name: str, cell: str, wanted: str | None) -> None:
    """What is not understood is told; such a sex or age is dropped, such a view is kept."""
    row, unknown = read_cells({name: cell})
    assert unknown == ([name] if wanted is None else [])
    assert row[name] == ((cell if name == "view" else "") if wanted is None else wanted)


def test_a_lateral_film_is_never_called_frontal() -> None:
    """Neither of its plain wordings nor of its templates; other views have the words they had."""
    for labels in ([], ["Effusion", "Mass"]):
        lateral = [caption_from_labels(labels, "lateral", "F", 61, i) for i in range(20)]
        plain = [caption_from_labels(labels, "PA", "F", 61, i) for i in range(20)]
        assert "lateral" in "".join(lateral)
        assert lateral == [
            text.replace("frontal", "lateral").replace("PA ch", "lateral ch") for text in plain
        ]
        row = {"view": "lateral", "labels": "|".join(labels), "sex": "F", "age": "61"}
        texts = {caption(row, {}, 7919 * i) for i in range(500)}
        assert not any("frontal" in text for text in texts)
        assert any("lateral" in text and "61 year old woman" in text for text in texts)
