"""The paper's figures are copied right."""

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
