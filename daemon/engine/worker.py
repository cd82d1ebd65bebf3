"""The engine process: runs one engine for the service, so that no device can hurt the service.

``python -m daemon.engine.worker FD`` talks over the inherited socket FD (frames: ``daemon.processes.frames``). It
builds the engine that it is told to, then answers batches; it dies with the service. Ending it is the clean restart
that wins a device back: a CUDA context that has seen an illegal access never computes again.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from daemon.common.text import first_line
from daemon.processes import frames
from daemon.processes.child import serving
from deploy.classifier import Classifier, EngineFault, EngineRequest, NoEngine, fault_of
from deploy.engine_cache import UnsafeCache
from deploy.engines import named
from models.bundle import BadBundle, read

_RECOVERABLE = "out_of_memory"  # a smaller batch may fit: the process goes on

_MOST_BYTES = 4 << 30  # of the signals of one batch


@dataclass
class RequestHandler:
    """Answers requests one after the other."""

    classifier: Classifier | None = None

    def answer(self, header: frames.Header, arrays: Sequence[frames.Array]) -> frames.Answer:
        """Never raises: what is wrong is said, whether with the device (``fault``) or the request (``refused``)."""
        try:
            return self._build(header) if header["ask"] == "build" else self._classify(header, arrays)
        except (BadBundle, NoEngine, UnsafeCache) as error:
            return {"refused": str(error)}, []
        except ValueError as error:
            return {"refused": first_line(error)}, []
        except Exception as error:
            fault = fault_of(error) or EngineFault("died", first_line(error))
            return {"fault": fault.kind, "text": str(fault)}, []

    def _build(self, header: frames.Header) -> frames.Answer:
        begun_s = time.monotonic()
        bundle = read(Path(header["folder"]))
        if bundle.id != header["model"]:
            raise BadBundle(f"the model's folder holds {bundle.id} by now (`afm-triage reload` takes it)")
        wish = header["wish"]
        asked = EngineRequest(**{**wish, "cache": Path(wish["cache"]) if wish["cache"] else None})
        self.classifier = named(header["engine"]).build(bundle, asked)
        return {"engine": str(self.classifier.engine), "build_s": time.monotonic() - begun_s}, []

    def _classify(self, header: frames.Header, arrays: Sequence[frames.Array]) -> frames.Answer:
        if self.classifier is None:
            raise EngineFault("died", "no engine was built")
        samples = arrays[0].astype(np.float32, copy=False)
        ends = np.cumsum(header["lengths"])
        seen = self.classifier.classify(np.split(samples, ends[:-1]) if len(ends) else [])
        return {"raster_s": seen.raster_s}, [seen.logits.astype("<f8"), seen.edges.astype("<f4")]


def main(descriptor: int) -> None:
    """Serve until the service hangs up. What a library left running must not keep the device: no long goodbye."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # these are for the service, which ends us itself
        signal.signal(number, signal.SIG_IGN)
    with serving(descriptor, memory_bytes=None) as connection:
        _serve(connection)
    os._exit(0)


def _serve(connection: socket.socket) -> None:
    handler = RequestHandler()
    while True:
        said, results = handler.answer(*frames.receive(connection, most_bytes=_MOST_BYTES))
        frames.send(connection, said, results)
        if said.get("fault", _RECOVERABLE) != _RECOVERABLE:
            return


if __name__ == "__main__":
    main(int(sys.argv[1]))
