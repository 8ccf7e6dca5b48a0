"""The few images of an adaptation: which are picked, how they vary, what their prompts say."""

from pathlib import Path

import pytest
import torch
from conftest import adaptation

from ldm.config import ConfigError
from ldm.data.data_config import DataConfig
from ldm.data.datasets import Phantoms
from ldm.training.methods.derived_datasets import Instances, Kind, pick
from ldm.training.training_run import build_method, load_run


def test_instances_are_those_with_the_fewest_other_findings(tmp_path: Path) -> None:
    """Five with an effusion, alone where that can be had; none that has anything for no finding."""
    phantoms = Phantoms(DataConfig(phantoms=60, size=16, cache=str(tmp_path)), channels=1)
    fluid, normal = pick(phantoms, Kind("Effusion", 5)), pick(phantoms, Kind("No Finding", 5))
    assert [sum(phantoms.findings(i).values()) for i in fluid] == [1] * 5
    assert not any(any(phantoms.findings(i).values()) for i in normal)
    with pytest.raises(ConfigError, match="needs 50 images with pleural effusion"):
        pick(phantoms, Kind("pleural effusion", 50))
    kinds = [Kind("No Finding", 2), Kind("Effusion", 1, " with fluid")]
    some = Instances(phantoms, kinds, ["lung{}", "chest{} of a man"])
    assert some.indices == [*normal[:2], fluid[0]]
    assert some.caption(0, 0) == "lung"
    assert some.caption(2, 3) == "chest with fluid of a man"


def test_instances_may_vary_but_not_their_prompts(tmp_path: Path, start: Path) -> None:
    """With method.variants=3 each image is there three times, each time a little different."""
    one, three = (
        build_method(load_run(adaptation(tmp_path, start, "finetune", {"variants": n}))).instances
        for n in (1, 3)
    )
    assert len(three) == 3 * len(one)
    x, y, z = three.images(torch.arange(3))
    assert not torch.equal(x, y)
    assert not torch.equal(y, z)
    for i in range(len(three)):
        assert three.caption(i, 0) == one.caption(i // 3, 0)
        assert three.sample_id(i) == one.sample_id(i // 3)


def test_images_vary_only_where_the_data_may(tmp_path: Path, start: Path) -> None:
    """With data.augment=false each image is there once, as it is, whatever method.variants says."""
    path = adaptation(tmp_path, start, "finetune", {"variants": 3})
    plain = build_method(load_run(path, ["data.augment=false"])).instances
    one = build_method(load_run(path, ["method.variants=1"])).instances
    assert len(plain) == len(one) == 4
    assert torch.equal(plain.images(torch.arange(4)), one.images(torch.arange(4)))


def test_class_images_of_another_number_keep_their_latents(tmp_path: Path, start: Path) -> None:
    """A run with fewer images of the prior reads the latents of the first few of many."""
    found = []
    for count in (3, 2, 3):
        options = {"prior_weight": 1.0, "prior_images": count, "prior_prompt": "a rib"}
        method = build_method(load_run(adaptation(tmp_path, start, "finetune", options)))
        found.append(method.prior.images(torch.arange(2)))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
