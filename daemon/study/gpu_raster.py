"""`study gpu`, the raster: whether the device draws what the processor draws, and what a curve costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from daemon.study.gpu_session import BATCHES, Session, queued_ms, wall_ms
from deploy.classifier import Signals
from models.raster import coverage, to_rows
from models.raster import envelope as envelope_by_numpy
from models.raster_torch import LARGEST_ROW_ERROR, Picture, envelope

_PART = 256


def measure(session: Session) -> dict[str, Any]:
    """Curves, how many envelopes differ in a bit, the largest errors of rows and pixels, microseconds by batch size."""
    signals, profile = session.curves.signals, session.bundle.profile
    picture = Picture(profile).to(session.device)
    differ, row_error, pixel_error = 0, 0.0, 0.0
    for start in range(0, len(signals), _PART):
        part = signals[start : start + _PART]
        drawn = envelope(*_on(session, part), profile)
        expected = envelope_by_numpy(part, profile)
        differ += int((drawn.cpu().numpy() != expected).any(axis=(1, 2)).sum())
        rows, pixels = picture.to_rows(drawn).cpu().numpy(), picture(drawn).cpu().numpy()
        row_error = max(row_error, float(np.abs(rows - to_rows(expected, profile)).max()))
        pixel_error = max(pixel_error, float(np.abs(pixels - coverage(expected, profile)).max()))
    return {
        "curves": len(signals),
        "envelopes_differ": differ,
        "row_error": row_error,
        "row_error_allowed": LARGEST_ROW_ERROR,
        "pixel_error": pixel_error,
        "microseconds": {str(size): _cost(session, size, picture) for size in BATCHES},
    }


def _cost(session: Session, size: int, picture: Picture) -> dict[str, float]:
    """Of one curve of a batch: envelope from samples that lie on the device, picture, and both by numpy."""
    profile, seconds = session.bundle.profile, session.seconds
    batch = session.batch(size)
    samples, sizes = _on(session, batch)
    edges = envelope(samples, sizes, profile)
    stream = torch.cuda.current_stream() if session.has_gpu else None
    by_numpy = wall_ms(lambda: coverage(envelope_by_numpy(batch, profile), profile), seconds / 4)
    each = 1000.0 / size
    return {
        "envelope": round(each * queued_ms(lambda: envelope(samples, sizes, profile), stream, seconds / 2), 3),
        "picture": round(each * queued_ms(lambda: picture(edges), stream, seconds / 2), 3),
        "numpy": round(each * by_numpy[len(by_numpy) // 2], 3),
    }


def _on(session: Session, signals: Signals) -> tuple[torch.Tensor, NDArray[np.int64]]:
    sizes = np.array([signal.shape[0] for signal in signals], np.int64)
    return torch.from_numpy(np.concatenate(signals)).to(session.device), sizes
