"""The picture classifier: what engines on the CPU share, from signals over pictures to logits."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.classifier import EngineId, Seen, Signals
from models.bundle import Bundle
from models.raster import coverage, envelope

# The cores: how many threads an engine may keep busy on a machine that belongs to an instrument.

CGROUP = Path("/sys/fs/cgroup")


def default_threads() -> int:
    """The cores this process may use, less one for the instrument; at least one."""
    return max(1, usable_cores() - 1)


def usable_cores() -> int:
    """Those it may be scheduled on, or fewer where its control group has bought less time than they have.

    A container with two cores' worth of time on a machine of 64 sees all 64, and is halted when it uses them.
    """
    return max(1, min([len(os.sched_getaffinity(0)), *quotas(_own_group())]))


def quotas(group: Path) -> Iterator[int]:
    """Whole cores, rounded up, that a control group (v2), or one above it, is limited to; none where none is."""
    for folder in (group, *group.parents):
        try:
            quota, period = (folder / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if quota != "max":
            yield -(-int(quota) // int(period))


def _own_group() -> Path:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    return next((CGROUP / line[4:] for line in lines if line.startswith("0::/")), CGROUP)


# The heap of a process that judges batch after batch: what one frees is kept for the next.

#: Of mallopt(3). Blocks above the first still go back to the system at once; so does what lies free above the second.
_M_MMAP_THRESHOLD, _MMAP_BYTES = -3, 32 << 20
_M_TRIM_THRESHOLD, _KEPT_BYTES = -1, 128 << 20
#: The main thread's heap, and one for all others.
_M_ARENA_MAX, _HEAPS = -8, 2


def keep_freed() -> None:
    """Have malloc keep what a batch frees.

    By default it gives every picture and every layer's output back to the system, which hands them out again page by
    page, each zeroed first: that way torch takes 0.9 ms a picture in batches of 16, and 0.6 ms this way.
    """
    with contextlib.suppress(OSError, AttributeError):  # another libc than glibc has its own ways
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def share_heaps() -> None:
    """Have all threads but the main one allocate from one heap; before they begin, for a heap that is there stays.

    Malloc makes up to eight for every core, gives a thread the next in turn, and each keeps what it held at most:
    threads that load one model after the other would leave that in all of them.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _HEAPS)


# The picture classifier: what engines on the CPU share, from signals over pictures to logits.

CHUNK = 16  # pictures at a time: 2 MB at 256 x 128, which stays in the caches; more are slower


class PictureClassifier(ABC):
    """A :class:`deploy.classifier.Classifier` that draws with numpy; subclasses bring the network."""

    def __init__(self, bundle: Bundle, engine: EngineId, margin: float | None = None) -> None:
        keep_freed()
        self._profile = bundle.profile
        self._shape = (1, bundle.profile.rows, bundle.profile.columns)
        self.engine, self._margin = engine, margin
        self.model_id = bundle.id

    def classify(self, signals: Signals) -> Seen:
        """B signals -> their logits and envelopes; ValueError for a signal with fewer samples than columns."""
        begun_s = time.perf_counter()
        edges = envelope(signals, self._profile)
        raster_s = time.perf_counter() - begun_s
        logits = np.zeros(len(signals), np.float64)
        for start in range(0, len(signals), CHUNK):
            begun_s = time.perf_counter()
            images = coverage(edges[start : start + CHUNK], self._profile)
            raster_s += time.perf_counter() - begun_s
            logits[start : start + CHUNK] = self.logits_of(images)
        return Seen(logits, edges, raster_s, margin=self._margin)

    def logits_of(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """(B, 1, H, W) float32 in [0, 1] -> (B,); ValueError when the pictures are not of the profile's size."""
        if images.shape[1:] != self._shape:
            raise ValueError(f"pictures are {images.shape[1:]}, the model wants {self._shape}")
        parts = [self._forward(images[start : start + CHUNK]) for start in range(0, len(images), CHUNK)]
        return np.concatenate(parts) if parts else np.zeros(0, np.float64)

    def warm_up(self) -> None:
        """The first call is slow: not on a curve's time."""
        for count in (1, 8):
            self.logits_of(np.zeros((count, *self._shape), np.float32))

    @abstractmethod
    def _forward(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """(b, 1, H, W), b from 1 to CHUNK, -> (b,)."""
