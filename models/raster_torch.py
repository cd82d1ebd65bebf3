"""The raster by torch, on any device: the envelope of :mod:`models.raster` bit for bit, and nearly the same picture.

The envelope is gathers, minima and maxima of float32, which no device rounds, and no atomic float operation: it has the
same bits on every device, in every batch. The picture differs from numpy's where asinh does, which numpy itself rounds
differently on processors with and without AVX-512. See ``LARGEST_ROW_ERROR``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.raster import RasterProfile

CELLS = 1 << 22  # gathered at a time, 48 MB: one long curve must not take the device's memory

#: Rows by which a picture may differ from numpy's. asinh is off by at most 1.7 units in the last place in numpy and in
#: torch on a CPU, by at most 4 on a GPU (CUDA C++ Programming Guide, table of standard functions); a unit is 5e-7 and
#: a row of the shipped profile 0.07.
LARGEST_ROW_ERROR = 5e-5


def envelope(samples: Tensor, sizes: NDArray[np.int64], profile: RasterProfile) -> Tensor:
    """B signals, one after the other as (N,) float32, and their sizes (B,) -> (B, 2, W) on the device of ``samples``.

    Equals :func:`models.raster.envelope` in every bit, except that a zero may carry the other sign. ValueError for a
    signal with fewer samples than columns and for sizes that are not those of ``samples``.
    """
    width = profile.columns
    if int(sizes.sum()) != samples.shape[0]:
        raise ValueError(f"{samples.shape[0]} samples for signals of {int(sizes.sum())} together")
    if sizes.shape[0] and int(sizes.min()) < width:
        raise ValueError(f"a signal of {int(sizes.min())} samples has fewer than the {width} columns")
    edges = torch.empty((sizes.shape[0], 2, width), dtype=torch.float32, device=samples.device)
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.int64)[: sizes.shape[0]]
    for chosen, depth in _alike(sizes, width):
        bounds = torch.from_numpy(np.stack((starts[chosen], sizes[chosen]))).to(samples.device)
        part = _gathered(samples, bounds[0, :, None], bounds[1, :, None], width, depth)
        if chosen.shape[0] == sizes.shape[0]:
            return part
        edges[torch.from_numpy(chosen).to(samples.device)] = part
    return edges


def _alike(sizes: NDArray[np.int64], width: int) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Signals of about the same length, so many that the gather stays bounded, and how many samples a column takes."""
    needed = -(-sizes // width) + 1  # a column's samples, rounded up, and the one before them
    depths = 2 ** np.ceil(np.log2(needed)).astype(np.int64)
    for depth in np.unique(depths):
        alike = np.flatnonzero(depths == depth)
        deepest = int(needed[alike].max())
        step = max(1, CELLS // (width * deepest))
        for start in range(0, alike.shape[0], step):
            yield alike[start : start + step], deepest


def _gathered(samples: Tensor, starts: Tensor, sizes: Tensor, width: int, depth: int) -> Tensor:
    """Signals by their starts and sizes (b, 1) -> (b, 2, W): each column looks at ``depth`` samples, some twice."""
    column = torch.arange(width + 1, device=samples.device)
    first = starts + (column * sizes + (width - 1)) // width  # (b, W + 1), where each column begins and the last ends
    before = torch.maximum(first[:, :-1] - 1, starts)  # joins the polyline
    reach = before[:, :, None] + torch.arange(depth, device=samples.device)
    lower, upper = samples[torch.minimum(reach, first[:, 1:, None] - 1)].aminmax(dim=2)
    return torch.stack((lower, upper), dim=1)


class Picture(nn.Module):
    """(B, 2, W) in signal units -> (B, 1, H, W) in [0, 1], as :func:`models.raster.coverage`; always float32 inside.

    A part of the engine on a GPU: three elementwise steps on the picture, and one cast to ``dtype`` for the network.
    """

    softness: Tensor
    bottom: Tensor
    scale: Tensor
    floor: Tensor  # (H, 1), the lower end of each row

    def __init__(self, profile: RasterProfile, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        soft = np.float32(profile.softness)
        bottom, top = (np.arcsinh(np.float32(edge) / soft) for edge in (profile.lowest, profile.highest))
        # tensors and no numbers: a GPU divides by a number as it multiplies by its reciprocal, which rounds otherwise
        self._constant("softness", soft)
        self._constant("bottom", bottom)
        self._constant("scale", np.float32(profile.rows) / (top - bottom))
        self.register_buffer("floor", torch.arange(profile.rows, dtype=torch.float32)[:, None], persistent=False)
        self._half, self._rows, self._dtype = profile.thickness / 2, float(profile.rows), dtype

    def _constant(self, name: str, value: np.float32) -> None:
        self.register_buffer(name, torch.tensor(float(value), dtype=torch.float32), persistent=False)

    def to_rows(self, edges: Tensor) -> Tensor:
        """(B, 2, W) in signal units -> rows, 0 to H; within LARGEST_ROW_ERROR of :func:`models.raster.to_rows`."""
        rows = (torch.asinh(edges / self.softness) - self.bottom) * self.scale
        return rows.clamp(0.0, self._rows)

    def forward(self, edges: Tensor) -> Tensor:
        rows = self.to_rows(edges)
        # an interval's length inside a pixel: both ends cut to the pixel, then subtracted; the same bits as numpy's way
        lower = torch.clamp((rows[:, 0] - self._half)[:, None], self.floor, self.floor + 1)
        upper = torch.clamp((rows[:, 1] + self._half)[:, None], self.floor, self.floor + 1)
        return (upper - lower)[:, None].to(self._dtype)
