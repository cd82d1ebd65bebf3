"""The published recipe beside ours: a matplotlib picture, PIL, a plain ResNet18 at 224 x 224, curve by curve.

After Rodriguez-Ramos 2026 (arXiv 2606.09541: rasterised curves, ResNet18) and FUSION (Doffini, Liu, Liu & Nash 2023,
Nano Lett. 23:10406: pictures of 224 x 224 and an ImageNet network), in torch as it comes, with all cores. What those
papers leave open is filled with the defaults of the tools: matplotlib's margins, ImageNet's normalisation. It is
treated kindly: one figure is used again and again, no PNG is written, and where afmformats cannot read a file our own
reader stands in. Beside it, afmformats against our reader on the files that both can read.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from daemon.bench import cpu_ms
from daemon.bench.line import split
from daemon.formats import open_file
from daemon.instrument import recordings
from deploy.classifier import usable_cores
from models.curve import Curve, Samples
from models.network import ResNet18

PASSES_S = 5.0  # over all files, again and again
READ_S = 0.15  # a file and reader

SIDE = 224
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet

Pictures = NDArray[np.uint8]  # (N, 224, 224), grey, 255 is paper


def draw(curves: Iterable[Curve]) -> Iterator[Pictures]:
    """Each curve as matplotlib draws a line, axes to its own smallest and largest value: (224, 224)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIDE / 100, SIDE / 100), dpi=100)
    canvas: Any = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    (line,) = axes.plot([0.0, 1.0], [0.0, 1.0], color="black", linewidth=1.0)
    for curve in curves:
        places = curve.distance if curve.distance is not None else np.arange(len(curve), dtype=np.float64)
        line.set_data(_scaled(places), _scaled(curve.force))
        axes.relim()
        axes.autoscale_view()
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].mean(axis=2).astype(np.uint8)


def _scaled(values: Samples) -> Samples:
    """Newton and metres brought near 1, so that no limit of matplotlib's is met; the drawing is the same."""
    largest: float = float(np.abs(values).max())
    return values / (largest or 1.0)


class ThreeChannels(nn.Module):
    """torchvision's ResNet18 in shape, with one logit: (B, 224, 224) grey bytes -> (B,)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.body = ResNet18(width)
        self.body.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        nn.init.kaiming_normal_(self.body.conv1.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, grey: Tensor) -> Tensor:
        mean, spread = (torch.tensor(values)[None, :, None, None] for values in (_MEAN, _SPREAD))
        x = (grey[:, None].float() / 255 - mean) / spread
        return cast(Tensor, self.body(x))


Read = Callable[[Path], object]


@dataclass(frozen=True, slots=True, eq=False)
class SampleFile:
    """A file, what reads it in the recipe, and what is in it."""

    path: Path
    read: Read
    curves: tuple[Curve, ...]


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """``{"per_s", "ms": {"read", "picture", "network"}, "by_afmformats", "files", "readers": [row a file]}``.

    Of the files in the first folder that show their own end; ``readers`` is None where afmformats is missing.
    """
    seconds = request.get("seconds", PASSES_S)
    found, _ = split(recordings([Path(request["folders"][0])]))
    samples = [_sample_of(item.files[0]) for item in found]
    readable = [one for one in samples if one.read is read_by_afmformats]
    return {
        **_run(samples, seconds),
        "files": len(samples),
        "by_afmformats": len(readable),
        "threads": usable_cores(),
        "readers": [_readers(one, min(seconds, READ_S)) for one in readable] if find_spec("afmformats") else None,
    }


def read_by_afmformats(path: Path) -> int:
    """Its curves with force and every height in memory; how many there are. Raises whatever it raises."""
    curves = import_module("afmformats").load_data(path)
    for curve in curves:
        for column in curve.columns:
            if column == "force" or column.startswith("height"):
                np.asarray(curve[column])
    return len(curves)


def _sample_of(path: Path) -> SampleFile:
    logging.disable(logging.CRITICAL)  # it tells at length what it cannot read
    curves = tuple(open_file(path))
    read: Read = read_by_afmformats
    try:
        if read(path) != len(curves):
            read = open_file
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # afmformats' own errors are no Exception
        read = open_file
    return SampleFile(path, read, curves)


def _run(samples: list[SampleFile], seconds: float) -> dict[str, Any]:
    """The rate is that of the medians: what disturbed a single curve is not held against it."""
    picture_of, judge = _drawer(), _network()
    spent_s: dict[str, list[float]] = {"read": [], "picture": [], "network": []}

    def show(sample: SampleFile) -> None:
        _timed(spent_s["read"], partial(sample.read, sample.path), len(sample.curves))
        for curve in sample.curves:
            picture = _timed(spent_s["picture"], partial(picture_of, curve))
            _timed(spent_s["network"], partial(judge, picture))

    show(samples[0])  # the first time everything is slow
    spent_s = {stage: [] for stage in spent_s}
    until_s = time.perf_counter() + seconds
    while not spent_s["read"] or time.perf_counter() < until_s:
        for sample in samples:
            show(sample)
    medians = {stage: round(1000.0 * statistics.median(taken), 3) for stage, taken in spent_s.items()}
    return {"per_s": round(1000.0 / sum(medians.values()), 2), "ms": medians, "curves": len(spent_s["network"])}


def _timed(taken_s: list[float], work: Callable[[], Any], curves: int = 1) -> Any:
    begun_s = time.perf_counter()
    result = work()
    taken_s += [(time.perf_counter() - begun_s) / curves] * curves
    return result


def _drawer() -> Callable[[Curve], NDArray[np.uint8]]:
    """Curve -> (224, 224) through PIL."""
    from PIL import Image

    coming: deque[Curve] = deque()

    def feed() -> Iterator[Curve]:
        while True:
            yield coming.popleft()

    pictures = draw(feed())

    def draw_one(curve: Curve) -> NDArray[np.uint8]:
        coming.append(curve)
        image = Image.fromarray(next(pictures)).convert("RGB").resize((SIDE, SIDE))
        return np.asarray(image)[..., 0]

    return draw_one


def _network() -> Callable[[NDArray[np.uint8]], float]:
    """Untrained: that makes no difference to its speed."""
    torch.set_num_threads(usable_cores())
    network = ThreeChannels().eval()

    def judge(picture: NDArray[np.uint8]) -> float:
        with torch.inference_mode():
            return float(network(torch.from_numpy(np.ascontiguousarray(picture))[None])[0])

    return judge


def _readers(sample: SampleFile, seconds: float) -> dict[str, Any]:
    return {
        "file": sample.path.name,
        "curves": len(sample.curves),
        "afmformats_ms": round(cpu_ms(lambda: sample.read(sample.path), seconds), 3),
        "ours_ms": round(cpu_ms(lambda: open_file(sample.path), seconds), 3),
    }
