"""The settings of a study: its data, its models, and how many images of each kind."""

from dataclasses import dataclass, field
from pathlib import Path

from ldm.config import ConfigError
from ldm.data import DataConfig
from ldm.data.image_sets import UNSEEN

ROOT = Path(__file__).parents[3]
REAL_SEED = UNSEEN + 50_000_000  # of the phantoms that drawn images are compared with


@dataclass(frozen=True)
class Study:
    """All settings that decide the results.

    n: images of each prompt;  real: of each kind that they are compared with
    reconstructed: images through the autoencoder
    steps: of training, by the name of the config;  training: more settings of every training
    guidance, size: None leaves it to the model
    """

    tier: str = "laptop"
    quick: bool = False
    model: str = str(ROOT / "weights" / "base.safetensors")
    data: str | None = None
    reports: str | None = None
    encoder: str = str(ROOT / "weights" / "bert")
    encoders: tuple[str, ...] = ("words", "built-in", "random", "bert")
    weights: str = str(ROOT / "weights")
    distance_by: str = "judge"
    classified_by: str = "judge"
    n: int = 100
    real: int = 100
    reconstructed: int = 400
    per_class: int = 50
    steps: dict[str, int] = field(default_factory=dict)
    training: tuple[str, ...] = ()
    sampling_steps: int = 20
    guidance: float | None = 4.0  # chosen on other images, see docs/adaptation.md
    size: int | None = None
    seed: int = 2000
    device: str | None = None
    out: Path = Path("runs/study")

    def films(self, split: str, size: int) -> DataConfig:
        """Real images of a split, or phantoms that nothing was trained on."""
        cache = str(self.out / "cache")
        if self.data:
            return DataConfig(path=self.data, split=split, size=size, cache=cache, augment=False)
        first = REAL_SEED + (0 if split == "val" else 12 * self.real)
        return DataConfig(phantoms=12 * self.real, phantom_seed=first, size=size, cache=cache)


# what --quick has less of
QUICK = Study(
    quick=True,
    n=20,
    real=50,
    reconstructed=150,
    per_class=15,
    steps={
        **{"projection_document": 400, "projection_token": 100, "textual_inversion": 200},
        **dict.fromkeys(("unet_no_findings", "unet", "unet_prior"), 200),
    },
)
# the paper's (section 3.1); it names no rates, and 5e-6 for the U-Net is from another report of
# DreamBooth with Stable Diffusion, huggingface.co/blog/dreambooth
FULL_STEPS = {"projection_document": 10_000, "projection_token": 10_000, "textual_inversion": 3000}
FULL_RATES = dict.fromkeys(("unet_no_findings", "unet", "unet_prior"), 5e-6)


def check_full(model: str | None, data: str | None, reports: str | None) -> None:
    """Raises ConfigError, naming everything that the full tier lacks."""
    given = {
        "--model (weights of SD v1.4, such as sd-v1-4.ckpt)": model,
        "--data (a CSV with filename, labels and split)": data,
        "--reports (a CSV with impression and label)": reports,
    }
    if absent := [name for name, value in given.items() if not value]:
        raise ConfigError(f"--tier full needs {' and '.join(absent)}")
