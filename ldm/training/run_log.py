"""What a run leaves to look at: log.jsonl, curve.png, sheets of samples."""

from __future__ import annotations

import json
from pathlib import Path

from ldm.system import atomic


class Log:
    """JSON lines, one a step, in `folder/log.jsonl`; a resumed run cuts what it will do again."""

    def __init__(self, folder: Path, start: int) -> None:
        self.path, self.curve = folder / "log.jsonl", folder / "curve.png"
        kept = [row for row in read(self.path) if row["step"] < start]
        with atomic.whole_file(self.path) as path:
            path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        self.file = self.path.open("a", encoding="utf-8", buffering=1)

    def write(self, row: dict[str, float]) -> None:
        self.file.write(json.dumps(row) + "\n")

    def close(self) -> None:
        self.file.close()

    def draw(self) -> None:
        """The loss curve: every step pale, a running mean over 2 % of the run dark."""
        import matplotlib as mpl
        import numpy as np

        mpl.use("Agg")
        from matplotlib import pyplot as plt

        rows = read(self.path)
        names = [key for key in rows[-1] if key not in ("step", "lr", "seconds")] if rows else []
        if not names:
            return
        figure, axes = plt.subplots(len(names), 1, figsize=(7, 2.2 * len(names)), squeeze=False)
        for axis, name in zip(axes[:, 0], names, strict=True):
            points = np.array([(row["step"], row[name]) for row in rows if name in row])
            width = max(1, len(points) // 50)
            sums = np.cumsum([0, *points[:, 1]])
            mean = (sums[width:] - sums[:-width]) / width
            axis.plot(*points.T, color="0.8", linewidth=0.8)
            axis.plot(points[width - 1 :, 0], mean, color="C0")
            low, high = np.quantile(points[:, 1], [0, 0.98])
            axis.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low) + 1e-9)
            axis.set_ylabel(name)
        axes[-1, 0].set_xlabel("step")
        figure.tight_layout()
        with atomic.whole_file(self.curve) as path:
            figure.savefig(path, dpi=110, format="png")
        plt.close(figure)


def read(path: Path) -> list[dict[str, float]]:
    """The rows of a log; a last line cut off by a crash is dropped."""
    rows: list[dict[str, float]] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows
