"""The paper's figures are copied right."""

import pytest

from ldm.report import chambon

TABLE_3 = {
    **{"pubmedbert": 30.8, "clinicalbert": 35.1, "sapbert": 49.1, "radbert": 54.2},
    **{"cxrbertgeneral": 32.4, "cxrbertspecialized": 61.1},
}


def test_table_2_agrees_with_table_3() -> None:
    """The best of each model in table 2 is its macro average in table 3."""
    found = [max(chambon.BERTS[name].values()) for name in TABLE_3]
    assert found == list(TABLE_3.values())
    assert max(chambon.CLIP.values()) == 52.9


def test_table_3_has_the_macro_averages_of_its_columns() -> None:
    """The means over the classes are the table's last row, but for its rounding."""
    base, clip = zip(*chambon.CLASSES.values(), strict=True)
    assert sum(base) / 14 == pytest.approx(chambon.WORDS, abs=0.06)
    assert sum(clip) / 14 == pytest.approx(chambon.CLIP["eot"], abs=0.06)


@pytest.mark.parametrize("name", chambon.VERDICTS)
def test_table_5_agrees_with_itself(name: str) -> None:
    """Accuracy and F1 follow from precision and recall on 50 + 50 images."""
    _, accuracy, f1, precision, recall = chambon.VERDICTS[name]
    hits = 50 * recall
    alarms = hits / precision - hits if precision else None
    if alarms is not None:
        assert (hits + 50 - alarms) / 100 == pytest.approx(accuracy, abs=0.0051)
    if hits:
        assert 2 * precision * recall / (precision + recall) == pytest.approx(f1, abs=0.001)
    else:
        assert f1 == 0


def test_tables_1_and_6_have_the_same_findings() -> None:
    """And effusion's AUC, which section 3.2 quotes, is that of table 1."""
    assert chambon.MIMIC.keys() == chambon.CHEXPERT.keys()
    assert chambon.MIMIC["Pleural Effusion"].auc == [0.877, 0.881]
    assert chambon.MIMIC["Lung Lesion"].auc == [0.766, 0.728]
    assert set(chambon.FINDINGS.values()) == set(chambon.MIMIC)


def test_table_4_has_the_headlines() -> None:
    """The abstract's best is 0.034, of the U-Net without prior; the prior's is worse than none."""
    plain = {name: row[0] for name, row in chambon.FID.items() if row[0] is not None}
    assert min(plain, key=lambda name: plain[name]) == "unet"
    assert plain["unet"] == 0.034
    assert plain["unet_prior"] > plain["base"]
