"""The packing: a sender's curve as the bytes of a file, and whether a file holds the very curve that came again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.reading import Unfinished, Unreadable
from daemon.sources.message import Message, Refused
from models.curve import Curve

Pack = Callable[[Curve, Mapping[str, Any], Any], bytes]  # daemon.formats.packed.pack


@dataclass(frozen=True, slots=True)
class Packing:
    """``pack(curve, meta, dtype)`` makes a file of a curve, ``unpack(content)`` gives (curve, meta) back."""

    pack: Pack
    unpack: Callable[[bytes], tuple[Curve, Mapping[str, Any]]]

    def content(self, message: Message) -> bytes:
        """The file of a message, with all that its sender said."""
        meta = {"id": message.id, "name": message.name, "sent": dict(message.header)}
        return self.pack(message.curve, meta, message.dtype)

    def compare(self, message: Message, path: Path) -> None:
        """Raises ``Refused`` unless the file holds this very curve: an id is decided only once."""
        try:
            is_same = self._essence(path.read_bytes()) == self._essence(self.content(message))
        except (OSError, Unfinished, Unreadable, KeyError):
            reason = "is known, but its curve cannot be read any more; send this one with another id"
        else:
            if is_same:
                return
            reason = "was given to another curve"
        refusal = Refused(f"id: {json.dumps(message.id, ensure_ascii=False)} {reason}")
        refusal.id = message.id
        raise refusal

    def name_and_id(self, path: Path) -> tuple[str, str]:
        """What the sender called the curve of a file."""
        meta = self.unpack(path.read_bytes())[1]
        return str(meta["name"]), str(meta["id"])

    def _essence(self, content: bytes) -> bytes:
        """What makes the curve: its name, samples, units and constants, not what else a script has put beside."""
        curve, meta = self.unpack(content)
        return self.pack(curve, {"name": meta["name"]}, "<f8")
