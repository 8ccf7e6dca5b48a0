"""Feature extractors: each a network with the channels, size and range of the images it takes."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ldm.data.phantom import captions
from ldm.judging import inception
from ldm.judging.judge import load_judge
from ldm.metrics.estimate import Estimate
from ldm.pictures import image_files
from ldm.weights.weight_files import WeightsError, open_tensors, some

Array = NDArray[np.float64]
INCEPTION = "pt_inception-2015-12-05-6726825d.pth"
INCEPTION_FROM = (
    f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{INCEPTION}"
)
XRV = "densenet121-res224-"
JUDGES = ("judge", "judge_body", "judge_bones")


@dataclass(frozen=True)
class Extractor:
    """A network and the preprocessing of its images.

    network: [B, channels, size, size] in [low, high] -> features [B, d]
    head: features -> scores [B, K], one for each of `findings`; positive above `threshold`
    """

    name: str
    network: Callable[[Tensor], Tensor]
    size: int  # pixels of a side
    channels: int
    resize: str  # bilinear or bicubic; "..., antialiased" if it is
    crop: bool = True  # to the central square first, or be stretched
    pad: bool = False  # in the place of both: all of it, with black borders
    low: float = -1.0
    high: float = 1.0
    head: Callable[[Tensor], Tensor] | None = None
    findings: tuple[str, ...] = ()
    threshold: float = 0.0
    # of findings on held-out real images: (value, low, high, n)
    own_auc: Mapping[str, Estimate] = field(default_factory=dict)

    def __str__(self) -> str:
        fit = "padded" if self.pad else "central square" if self.crop else "stretched"
        form = f"{fit}, {self.size} px, {self.resize}"
        return f"{self.name} ({form}, [{self.low:g}, {self.high:g}])"

    def prepare(self, image: Tensor) -> Tensor:
        """[C, H, W] in [-1, 1] -> [channels, size, size] in [low, high].

        Raises ValueError for another range, which would change the features silently.
        """
        least, most = float(image.min()), float(image.max())
        if not (least >= -1.001 and most <= 1.001):  # not(): NaN compares as False
            raise ValueError(
                f"{self.name} expects images in [-1, 1], got one in [{least:.3g}, {most:.3g}]"
            )
        if self.pad:
            image = image_files.fit_padded(image, self.size)[0]
        image = image_files.central(image) if self.crop else image
        x, size = image_files.to_channels(image, self.channels), (self.size, self.size)
        if x.shape[-2:] != size:
            mode, _, antialias = self.resize.partition(", ")
            x = F.interpolate(x[None], size, mode=mode, antialias=bool(antialias))[0].clamp(-1, 1)
        return (x + 1) / 2 * (self.high - self.low) + self.low

    @torch.inference_mode()
    def __call__(self, pictures: Iterable[Tensor]) -> Array:
        """[B, d] of a batch of images [C, H, W] in [-1, 1], each of any size."""
        features = self.network(torch.stack([self.prepare(image) for image in pictures]))
        return features.double().cpu().numpy()

    @torch.inference_mode()
    def scores(self, features: Array) -> Array:
        """[B, K] from features [B, d]"""
        if self.head is None:
            raise ValueError(f"{self.name} names no findings; use judge or {XRV}all")
        return self.head(torch.from_numpy(features).float()).double().numpy()


def batches(
    pictures: Iterable[tuple[int, Tensor]], size: int = 32
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Numbered images, `size` at a time: their numbers, and the images."""
    each = iter(pictures)
    while batch := list(islice(each, size)):
        numbers, images = map(list, zip(*batch, strict=True))
        yield numbers, images


def open_extractor(name: str, weights: str | Path = "weights") -> Extractor:
    """judge, inception, densenet121-res224-... or clip:MODEL/PRETRAINED.

    weights: the folder where the files of the first three are looked for
    Raises ValueError, in one line, that says where a missing file comes from.
    """
    folder = Path(weights)
    if name in JUDGES:
        return _judge(name, folder)
    if name == "inception":
        return _inception(folder / INCEPTION)
    if name.startswith(XRV):
        return _xrv(name, folder)
    if name.startswith("clip:"):
        return _clip(name)
    raise ValueError(
        f"unknown extractor {name!r}; known: judge, inception, {XRV}all (and its like), "
        "clip:MODEL/PRETRAINED as open_clip names them"
    )


def _judge(name: str, folder: Path) -> Extractor:
    judge = load_judge(folder / f"{name}.safetensors")
    form = (judge.config.size, 1, "bicubic, antialiased")
    known = folder / f"{name}.json"
    try:
        table = json.loads(known.read_bytes()) if known.exists() else {}
        own = {finding: Estimate(**each) for finding, each in table.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{known} is no table of AUCs; benchmarks/judged.py --own {known} writes one"
        ) from error
    return Extractor(
        name,
        judge.features,
        *form,
        pad=name == "judge_body",  # as it was trained
        head=judge.out,
        findings=judge.config.findings,
        own_auc=own,
    )


def _inception(file: Path) -> Extractor:
    """Resized as pytorch-fid does, and its published figures: bilinear without antialiasing."""
    if not file.exists():
        raise WeightsError(f"{file} does not exist; fetch it from {INCEPTION_FROM}")
    tensors, _ = open_tensors(file)
    with torch.device("meta"):
        network = inception.Inception()
    # some files lack the counters, which only training uses
    counters = {n for n in network.state_dict() if n.endswith("num_batches_tracked")}
    state = dict.fromkeys(counters, torch.tensor(0)) | {n: read() for n, read in tensors.items()}
    try:
        missing, unknown = network.load_state_dict(state, strict=False, assign=True)
    except RuntimeError as error:
        raise WeightsError(f"{file}: {str(error).splitlines()[1].strip()}") from error
    if missing or unknown:
        raise WeightsError(
            f"{file} is not Inception-v3 of the FID papers: it lacks {some(sorted(missing))} and "
            f"has {some(sorted(unknown))} beyond it; fetch it from {INCEPTION_FROM}"
        )
    name, network = f"inception ({file.stem})", network.eval()
    return Extractor(name, network, inception.SIZE, 3, "bilinear", crop=False)


def _xrv(name: str, folder: Path) -> Extractor:
    """torchxrayvision's DenseNet-121 (arXiv:2002.02497), on its own range [-1024, 1024]."""
    with contextlib.redirect_stdout(sys.stderr):  # it prints
        import torchxrayvision

        known = torchxrayvision.models.model_urls
        if name not in known:
            raise ValueError(
                f"unknown weights {name!r}; known: {', '.join(n for n in known if XRV in n)}"
            )
        url = known[name]["weights_url"]
        file = folder / url.rpartition("/")[2]
        try:
            network: Any = torchxrayvision.models.DenseNet(weights=name, cache_dir=str(folder))
        except Exception as error:  # its download and its unpickling raise all sorts
            raise WeightsError(
                f"{file} could not be opened ({type(error).__name__}); fetch it from {url}"
            ) from error
    normalised = torchxrayvision.models.op_norm

    def head(features: Tensor) -> Tensor:
        return normalised(torch.sigmoid(network.classifier(features)), network.op_threshs)

    form = (network.input_resolution, 1, "bilinear, antialiased")
    names, features = tuple(map(captions.readable, network.targets)), network.eval().features2
    extractor = Extractor(name, features, *form, low=-1024, high=1024, head=head, findings=names)
    return replace(extractor, threshold=0.5)  # its operating points are moved there


def _clip(name: str) -> Extractor:
    """The projected, normalised image embedding of an open_clip model, as CMMD uses it."""
    model, _, pretrained = name.removeprefix("clip:").partition("/")
    import open_clip

    if pretrained not in open_clip.list_pretrained_tags_by_model(model):
        raise ValueError(
            f"open_clip knows no {model}/{pretrained}; open_clip.list_pretrained() names all"
        )
    try:
        network: Any = open_clip.create_model(model, pretrained=pretrained)
    except Exception as error:  # its download raises all sorts
        raise WeightsError(
            f"open_clip could not fetch the weights of {model}/{pretrained} "
            f"({type(error).__name__}); with a network it keeps them in its own cache"
        ) from error
    mean, std = torch.tensor([network.visual.image_mean, network.visual.image_std])[..., None, None]

    def embed(x: Tensor) -> Tensor:
        return F.normalize(network.encode_image((x - mean) / std), dim=1)

    size = network.visual.image_size
    size = size if isinstance(size, int) else size[0]
    return Extractor(name, embed, size, 3, "bicubic, antialiased", low=0.0)
