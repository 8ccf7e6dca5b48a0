"""Which device computes, how much memory is available, and how processes sum."""

import mmap
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist

from ldm.system import devices


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Two GPUs, as far as PyTorch is asked; those that were made the current one."""
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


@pytest.mark.parametrize(("name", "index"), [(None, 0), ("cuda", 0), ("cuda:1", 1)])
def test_one_process_takes_the_gpu_that_it_is_told(
    name: str | None, index: int, gpus: list[int]
) -> None:
    assert devices.choose(name) == torch.device("cuda", index)
    assert gpus == [index]  # Triton starts its kernels on the current one


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", [None, "cuda"])
def test_each_process_has_a_gpu_of_its_own(
    name: str | None, rank: int, gpus: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of as many as torchrun started; NCCL refuses two processes on one."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    assert devices.choose(name) == torch.device("cuda", rank)
    assert gpus == [rank]
    assert devices.choose("cpu") == torch.device("cpu")


@pytest.mark.parametrize(("name", "processes"), [(None, 3), ("cuda:1", 2)])
def test_too_many_processes_for_the_gpus_are_refused(
    name: str | None, processes: int, gpus: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setenv("LOCAL_RANK", "0")
    told = f"each of {processes} processes needs a GPU of its own, and there are 2"
    with pytest.raises(ValueError, match=told):
        devices.choose(name)
    assert not gpus


@pytest.mark.parametrize(("cuda", "backend"), [(True, "cpu:gloo,cuda:nccl"), (False, "gloo")])
def test_processes_can_sum_on_either_device(
    cuda: bool, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """train.device=cpu is a choice where there are GPUs, too."""
    asked: list[str] = []
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout: asked.append(backend))
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    assert devices.join_processes() == devices.Processes(1, 2)
    assert asked == [backend]


def test_a_failed_sum_names_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(tensor: torch.Tensor) -> None:
        raise RuntimeError("Duplicate GPU detected\nand much more")

    monkeypatch.setattr(dist, "all_reduce", fail)
    told = r"process 0 of 2 lost the others \(Duplicate GPU detected\); if one of them has ended"
    with pytest.raises(OSError, match=told):
        devices.Processes(0, 2).add([torch.zeros(1)])


@pytest.mark.skipif(not hasattr(psutil.Process().memory_info(), "shared"), reason="Linux only")
def test_a_mapped_file_is_not_counted_twice(tmp_path: Path) -> None:
    """The system counts its pages as available already; they are not this process's to fill."""
    path, size = tmp_path / "weights", 256 << 20
    with path.open("wb") as file:
        file.truncate(size)
    held = psutil.Process().memory_info()
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as pages:
        assert not any(pages[:: mmap.PAGESIZE])  # reads every page
        now = psutil.Process().memory_info()
        assert now.rss - held.rss > 0.9 * size
        free = psutil.virtual_memory().available
        assert devices.available(torch.device("cpu")) < free + now.rss - 0.9 * size


@pytest.mark.parametrize(
    ("name", "text"),
    [("RANK", "x"), ("RANK", ""), ("RANK", "2"), ("WORLD_SIZE", "bad"), ("MASTER_PORT", "-1")],
)
def test_a_variable_that_torchrun_would_not_set_is_named(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a number, or a rank without a place: an error, before anybody waits for the others."""
    given = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for variable, value in (given | {name: text}).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(dist, "init_process_group", lambda *a, **k: pytest.fail("waits"))
    with pytest.raises(ValueError, match=f"{name} .*let torchrun set"):
        devices.join_processes()
