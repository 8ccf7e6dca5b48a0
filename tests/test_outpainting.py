"""Outpainting: where the image lies, which windows come when, and that a stop costs nothing."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_latent_editing import PROMPT, SAMPLING, picture

from ldm import rng
from ldm.config import ConfigError
from ldm.drawing import compositing, outpainting
from ldm.drawing.compositing import Box
from ldm.drawing.latent_editing import OnStep, PictureBatch
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion

FEW = replace(SAMPLING, steps=1)
TEXT = {"synthetic": "yes"}


def test_the_image_lies_where_it_was_put() -> None:
    """x to the right, y down, in pixels of the canvas."""
    given = picture(64, 70, 3)
    board, known = outpainting.place(given, (100, 90), (20, 10))
    assert board.shape == (90, 100, 3)
    assert np.array_equal(board[10:74, 20:90], given)
    assert known.sum() == 64 * 70
    assert known[10:74, 20:90].all()


def test_windows_fill_the_canvas_and_each_has_something_to_go_by() -> None:
    """By 100 random canvases: all is painted, every window overlaps what is there by then."""
    g = np.random.default_rng(0)
    for _ in range(100):
        height, width = g.integers(64, 200, 2)
        known = np.zeros((height, width), bool)
        top, left = g.integers(0, height - 63), g.integers(0, width - 63)
        known[top : top + 64, left : left + 64] = True
        for box in outpainting.plan(known, 64):
            there = known[box.inside]
            assert there.shape == (64, 64)
            assert there.any()
            assert not there.all()
            known[box.inside] = True
        assert known.all()


def test_the_window_with_most_to_go_by_comes_first() -> None:
    """By hand: beside the image first, the corners, which know three quarters then, later."""
    known = np.zeros((96, 96), bool)
    known[:64, :64] = True
    assert outpainting.plan(known, 64) == [
        Box(0, 32, 64, 64),
        Box(32, 0, 64, 64),
        Box(32, 32, 64, 64),
    ]


def test_what_is_painted_is_kept_by_later_windows(tiny: LatentDiffusion) -> None:
    """The image and each window stay bit for bit once they are there; nothing is left black."""
    given = picture(64, 64, bits=16)
    board, known = outpainting.place(given, (96, 80), (16, 10))
    boxes = outpainting.plan(known, 32)
    assert len(boxes) > 3
    before, seen = board, known.copy()
    batch = PictureBatch(tiny, [PROMPT], [0], FEW)
    painted = outpainting.outpaint(batch, board, known, boxes)
    for box, after in zip(boxes, painted, strict=True):
        assert np.array_equal(after[seen], before[seen])
        seen[box.inside] = True
        before = after
    assert seen.all()
    assert np.array_equal(after[10:74, 16:80], given)


def test_each_window_has_noise_of_its_own(
    tiny: LatentDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the same structures would repeat across the canvas."""
    board, known = outpainting.place(picture(64, 64), (80, 64), (0, 0))
    seeds: list[int] = []
    draw = rng.gaussian
    monkeypatch.setattr(
        rng, "gaussian", lambda seed, *rest: seeds.append(seed) or draw(seed, *rest)
    )
    boxes = outpainting.plan(known, 32)
    list(outpainting.outpaint(PictureBatch(tiny, [PROMPT], [0], FEW), board, known, boxes))
    assert len(set(seeds)) == len(boxes) > 1


@pytest.fixture
def resumable(tiny: LatentDiffusion, tmp_path: Path) -> Callable[..., compositing.Levels]:
    """Outpaints an image window by window, its state in a folder of the given name."""
    board, known = outpainting.place(picture(64, 64), (80, 64), (8, 0))
    boxes = outpainting.plan(known, 32)

    def run(
        name: str, on_step: OnStep = lambda step: None, text: dict[str, str] = TEXT
    ) -> compositing.Levels:
        batch = PictureBatch(tiny, [PROMPT], [0], FEW, on_step)
        return outpainting.outpaint_resumably(batch, board, known, boxes, 1, tmp_path / name, text)

    return run


def test_a_run_stopped_between_windows_goes_on_to_the_same_levels(
    resumable: Callable[..., compositing.Levels], tmp_path: Path
) -> None:
    """Stopped in the third window, the same call paints from the third on, not from the first."""
    expected = resumable("whole")
    painted: list[object] = []

    def stop(step: object) -> None:
        painted.append(step)
        if len(painted) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resumable("stopped", stop)
    state, preview = outpainting.unfinished(tmp_path / "stopped", 0)
    assert set((tmp_path / "stopped").iterdir()) == {state, preview}
    text = image_files.read_text(preview)
    windows = int(text.pop("unfinished").removeprefix("2 of ").removesuffix(" windows"))
    assert text == TEXT
    painted.clear()
    assert np.array_equal(resumable("stopped", painted.append), expected)
    assert len(painted) == windows - 2  # one step each


def test_states_of_other_commands_and_damaged_ones_are_refused(
    resumable: Callable[..., compositing.Levels], tmp_path: Path
) -> None:
    """In one line that says what to do, and the state stays."""
    expected = resumable("out")
    state, _ = outpainting.unfinished(tmp_path / "out", 0)
    with pytest.raises(ConfigError, match="was left by another command: give that one again"):
        resumable("out", text={**TEXT, "seed": "1"})
    whole, rng = state.read_bytes(), np.random.default_rng(0)
    damaged = [whole[:100], b""]
    for place in [*rng.integers(0, 300, 60), *rng.integers(len(whole) - 600, len(whole), 60)]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(flipped))
    with np.load(io.BytesIO(whole)) as stored:
        for forged in (
            {"done": -1},
            {"done": 1},
            {"done": 10**9},
            {"canvas": np.zeros((64, 64, 1), np.uint8)},
        ):
            file = io.BytesIO()
            np.savez(file, **{**stored, **forged})
            damaged.append(file.getvalue())
    messages = []
    for content in damaged:
        state.write_bytes(content)
        try:  # a bit that no reader looks at changes nothing
            assert np.array_equal(resumable("out"), expected)
        except ConfigError as error:
            messages.append(str(error))
        assert state.exists()
    assert len(messages) > len(damaged) / 2
    assert all("is damaged or of" in text or "by another command" in text for text in messages)
