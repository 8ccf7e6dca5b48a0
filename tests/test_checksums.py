"""Checksums: a file that is not as it was written is told from one that is."""

from pathlib import Path

import pytest
import torch
from conftest import assert_one_line, assert_same
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ldm.weights import checksums
from ldm.weights.conversion import convert, main
from ldm.weights.export import CHECKSUMS, write_safetensors
from ldm.weights.weight_files import WeightsError

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.tensor(3),
    **{f"c{i}": torch.ones(3, dtype=d) for i, d in enumerate((torch.bfloat16, torch.half))},
    "d": torch.zeros(0, 2),
    "e": torch.ones(2).to(torch.float8_e4m3fn),
    "f": torch.tensor([[True, False]]).t(),
}


def test_our_files_are_those_of_safetensors(tmp_path: Path) -> None:
    """The library reads them, and writes the same bytes where it has a single entry to write."""
    write_safetensors(tmp_path / "ours.safetensors", TENSORS, {})
    assert_same(load_file(tmp_path / "ours.safetensors"), TENSORS)
    with safe_open(tmp_path / "ours.safetensors", "pt") as handle:
        said = handle.metadata()
    plain = {name: tensor.contiguous() for name, tensor in TENSORS.items()}
    save_file(plain, tmp_path / "theirs.safetensors", said)
    ours, theirs = ((tmp_path / f"{n}.safetensors").read_bytes() for n in ("ours", "theirs"))
    assert ours == theirs


def test_equal_weights_are_equal_files(tmp_path: Path) -> None:
    """Whatever the order of tensors and of the metadata's entries."""
    facts = {f"entry {i}": "x" for i in range(9)}
    write_safetensors(tmp_path / "a", TENSORS, facts)
    write_safetensors(tmp_path / "b", dict(reversed(TENSORS.items())), facts)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """Of head, metadata and numbers (in the word for checksums itself: there are none then)."""
    file = tmp_path / "x.safetensors"
    write_safetensors(file, {"a": torch.ones(3), "b": torch.zeros(2).half()}, {"config": "{}"})
    whole = file.read_bytes()
    assert checksums.compare(file) == "is as it was written (2 tensors)"
    place = whole.index(CHECKSUMS.encode())
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        if not place <= bit // 8 < place + len(CHECKSUMS):
            with pytest.raises(WeightsError, match=r"x\.safetensors"):
                checksums.compare(file)


def test_the_command_compares_files_of_every_kind(
    tmp_path: Path, tiny_diffusers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ours and zips, a line each; files of others have no checksums, which is said; status 0."""
    convert(tiny_diffusers, tmp_path / "ours.safetensors")
    convert(tiny_diffusers, tmp_path / "ours.ckpt")
    convert(tiny_diffusers, tmp_path / "folder")
    torch.save({"a": torch.ones(2)}, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    save_file({"a": torch.ones(2)}, tmp_path / "foreign.safetensors")
    types = (".safetensors", ".ckpt", ".bin")
    files = sorted(path for path in tmp_path.rglob("*.*") if path.suffix in types)
    assert main(["check", *map(str, files)]) == 0
    lines = capsys.readouterr().out.splitlines()
    foreign = {"foreign.safetensors", "old.bin"}
    assert [line.split(" ")[1] for line in lines] == [
        "has" if path.name in foreign else "is" for path in files
    ]
    assert len(files) == 7


@pytest.mark.parametrize("name", ["ours.safetensors", "ours.ckpt"])
def test_damaged_files_are_one_line_and_status_2(
    tmp_path: Path, tiny_diffusers: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A changed number, a file cut short, one that is not there: named, after the whole ones."""
    convert(tiny_diffusers, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    (tmp_path / f"changed {name}").write_bytes(changed)
    (tmp_path / f"short {name}").write_bytes(whole[:-1000])
    bad = [f"changed {name}", f"short {name}", "absent.pt"]
    assert main(["check", *(str(tmp_path / n) for n in (*bad, name))]) == 2
    said = capsys.readouterr()
    *lines, last = said.out.splitlines()
    assert last.startswith(f"{tmp_path / name} is as it was written")
    assert all(name in line for name, line in zip(bad, lines, strict=True))
    assert not any("as it was written" in line for line in lines)
    assert_one_line(said.err, "3 of 4 files are damaged")
