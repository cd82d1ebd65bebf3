"""The checkpoint: an unfinished training run on disk, as safetensors and JSON, never as a pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def store(folder: Path, network: nn.Module, optimiser: torch.optim.Optimizer, epochs: int) -> None:
    """Write weights and optimiser; the older checkpoint stays until the new one is whole. OSError for a full disk."""
    folder.mkdir(parents=True, exist_ok=True)
    state = optimiser.state_dict()
    tensors = {f"network.{name}": value.contiguous() for name, value in network.state_dict().items()}
    for place, slots in state["state"].items():
        tensors |= {f"optimiser.{place}.{slot}": value.contiguous() for slot, value in slots.items()}
    name = f"epoch-{epochs}.safetensors"
    try:
        save_file(tensors, folder / f".{name}.new")
    except SafetensorError as error:  # a full disk, in its words
        (folder / f".{name}.new").unlink(missing_ok=True)
        raise OSError(f"{folder}: {error}; make room, then go on with the same command") from None
    (folder / f".{name}.new").replace(folder / name)
    marker = folder / ".progress.json.new"
    marker.write_text(json.dumps({"epochs": epochs, "file": name}))
    marker.replace(folder / "progress.json")
    for old in folder.glob("epoch-*.safetensors"):
        if old.name != name:
            old.unlink()


def restore(folder: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Load the last checkpoint into both; the number of epochs that it holds, 0 when there is none."""
    try:
        progress = json.loads((folder / "progress.json").read_text())
        tensors = load_file(folder / str(progress["file"]))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return 0
    prefix = "network."
    weights = {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
    wanted = {name: value.shape for name, value in network.state_dict().items()}
    if {name: value.shape for name, value in weights.items()} != wanted:
        return 0
    network.load_state_dict(weights)
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, place, *slot = name.split(".")
        if kind == "optimiser":
            state.setdefault(int(place), {})[slot[0]] = tensor
    groups: list[dict[str, Any]] = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    return int(progress["epochs"])
