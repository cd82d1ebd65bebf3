"""The ingest message: header, force, distance, as a laboratory's own script sends them; nothing in it is trusted.

Frames ``[header JSON, force bytes, distance bytes]``. An empty distance frame means that there is none. ``segments``
are ``[style, start, stop]`` with ``stop`` behind the last sample, in the order of time.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

import numpy as np
from msgspec import Struct

from daemon.formats import dates
from daemon.formats.afmcurve import pack, unpack
from daemon.formats.base import Unfinished, Unreadable
from models.curve import Curve, DistanceKind, ForceUnit, Samples

LARGEST_FRAME_BYTES = 64 << 20
_LARGEST_HEADER_BYTES = 64 << 10
_MOST_SEGMENTS = 1000
_RETRACT, _APPROACH = ("retract", "retraction"), ("approach", "extend", "extension")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class Refused(Exception):
    """This message is not a curve; ``args[0]`` is one line that says why, ``id`` whose it was if that could be read."""

    id: str | None = None


class Header(Struct, frozen=True, kw_only=True):
    """What a sender has to say of a curve, and may say; anything else is kept beside the curve."""

    name: str
    id: str
    dtype: Literal["<f4", "<f8"]
    force_unit: ForceUnit
    pulling: Literal["positive", "negative"]
    distance_grows: Literal["away", "towards"]
    distance_kind: DistanceKind  # "piezo" where nothing is said


#: The fields of a header that are one of a few words.
_CHOICES = {key: get_args(kind) for key, kind in get_type_hints(Header).items() if get_origin(kind) is Literal}


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """One curve as it was sent, already oriented."""

    id: str
    name: str
    dtype: Literal["<f4", "<f8"]
    curve: Curve
    header: Mapping[str, Any]  # everything the sender said


def parse(frames: Sequence[bytes]) -> Message:
    """The curve of three frames. Raises ``Refused``."""
    if len(frames) != 3:
        many = f"{len(frames)} frames" if len(frames) <= 5 else "more than 5 frames"
        raise Refused(f"{many} instead of 3: header, force, distance; send one message a curve")
    said = _object(frames[0])
    sender = said.get("id")
    try:
        return _message(said, *frames[1:])
    except Refused as refusal:
        refusal.id = sender if isinstance(sender, str) else None
        raise


def _message(said: Mapping[str, Any], force_bytes: bytes, distance_bytes: bytes) -> Message:
    header = _header(said)
    sign = 1.0 if header.pulling == "positive" else -1.0
    outward = 1.0 if header.distance_grows == "away" else -1.0
    force = sign * _samples(force_bytes, header.dtype, "force")
    distance = outward * _samples(distance_bytes, header.dtype, "distance") if distance_bytes else None
    if distance is not None and distance.shape != force.shape:
        raise Refused(f"force has {force.shape[0]} samples and distance {distance.shape[0]}")
    retract, approach = _segments(said, force.shape[0])
    curve = Curve(
        force=force[retract],
        force_unit=header.force_unit,
        distance=None if distance is None else distance[retract],
        distance_kind=None if distance is None else header.distance_kind,
        approach_force=None if approach is None else force[approach],
        spring_constant_n_per_m=_positive(said, "spring_constant_n_per_m"),
        sensitivity_m_per_v=_positive(said, "sensitivity_m_per_v"),
        acquired_s=_acquired_s(said),
    )
    return Message(header.id, header.name, header.dtype, curve, said)


def _header(said: Mapping[str, Any]) -> Header:
    """Raises ``Refused`` for the first thing that is wrong: the texts, then the choices in their order."""
    name = _text(said, "name", 1024)
    if ".." in name.replace("\\", "/").split("/"):
        raise Refused('name: ".." is not allowed in it')
    identity, full = _text(said, "id", 256), {"distance_kind": "piezo", **said}
    return Header(name=name, id=identity, **{key: _choice(full, key, words) for key, words in _CHOICES.items()})


def _object(frame: bytes) -> dict[str, Any]:
    if len(frame) > _LARGEST_HEADER_BYTES:
        raise Refused(f"header of {len(frame)} bytes; at most {_LARGEST_HEADER_BYTES}")
    try:
        header = json.loads(frame.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Refused("header is not JSON") from None
    if not isinstance(header, dict):
        raise Refused("header is not a JSON object")
    return header


def _no_constant(word: str) -> NoReturn:
    raise ValueError(word)


def _text(header: Mapping[str, Any], key: str, longest: int) -> str:
    value = header.get(key)
    if not isinstance(value, str) or not value:
        raise Refused(f"{key}: a text is needed")
    if len(value) > longest or _CONTROL.search(value):
        raise Refused(f"{key}: at most {longest} characters, none of them control characters")
    return value


def _choice(header: Mapping[str, Any], key: str, words: tuple[str, ...]) -> Any:
    value = header.get(key)
    if not isinstance(value, str) or value not in words:
        raise Refused(f"{key}: one of {', '.join(words)} is needed")
    return value


def _positive(header: Mapping[str, Any], key: str) -> float | None:
    value = header.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Refused(f"{key}: a number is needed")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number <= 0:
        raise Refused(f"{key}: a positive number is needed")
    return number


def _acquired_s(header: Mapping[str, Any]) -> float | None:
    """None too for a time that cannot be: a wrong clock is no reason to lose a curve."""
    value = header.get("acquired")
    try:
        return None if value is None else dates.rfc3339(value)
    except (TypeError, ValueError):
        raise Refused('acquired: a time as RFC 3339 writes it is needed, as "2026-11-20T11:59:58Z"') from None


def _samples(frame: bytes, dtype: str, what: str) -> Samples:
    width = np.dtype(dtype).itemsize
    if not frame or len(frame) > LARGEST_FRAME_BYTES or len(frame) % width:
        raise Refused(f"{what}: {len(frame)} bytes are not a number of samples of {width} bytes (at most 64 MiB)")
    return np.frombuffer(frame, dtype).astype(np.float64)


def _segments(header: Mapping[str, Any], points: int) -> tuple[slice, slice | None]:
    """The one retract, and the approach before it."""
    given = header.get("segments")
    if given is None:
        return slice(0, points), None
    if not isinstance(given, list) or not 0 < len(given) <= _MOST_SEGMENTS:
        raise Refused(f"segments: a list of 1 to {_MOST_SEGMENTS} [style, start, stop] is needed")
    found = [_segment(one, points) for one in given]
    retracts = [at for at, (style, _) in enumerate(found) if style in _RETRACT]
    if len(retracts) != 1:
        raise Refused(f"segments: one retract a message is needed, not {len(retracts)}")
    before = [part for style, part in found[: retracts[0]] if style in _APPROACH]
    return found[retracts[0]][1], before[-1] if before else None


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _segment(one: object, points: int) -> tuple[str, slice]:
    if isinstance(one, list) and len(one) == 3:
        style, start, stop = one
        if isinstance(style, str) and _is_whole(start) and _is_whole(stop) and 0 <= start < stop <= points:
            return style.lower(), slice(start, stop)
    raise Refused(f"segments: [style, start, stop] with 0 <= start < stop <= {points} is needed")


def content_of(message: Message) -> bytes:
    """The file of a message, with all that its sender said."""
    meta = {"id": message.id, "name": message.name, "sent": dict(message.header)}
    return pack(message.curve, meta, message.dtype)


def digest_of(path: Path) -> str:
    """What makes the curve of a file, in short; "" for one that cannot be read. OSError."""
    try:
        return hashlib.sha256(_essence(path.read_bytes())).hexdigest()
    except (Unfinished, Unreadable, KeyError):
        return ""


def check_same(message: Message, path: Path, noted: Callable[[], str | None] = lambda: None) -> None:
    """Raises ``Refused`` unless the file holds the very curve that came again: an id is decided only once.

    ``noted``: the ``digest_of`` a file that was pruned.
    """
    essence = _essence(content_of(message))
    try:
        is_same = _essence(path.read_bytes()) == essence if path.exists() else None
        if is_same is None and (digest := noted()) is not None:
            is_same = digest == hashlib.sha256(essence).hexdigest()
        if is_same is None:
            raise FileNotFoundError(path)
    except (OSError, Unfinished, Unreadable, KeyError):
        reason = "is known, but its curve cannot be read any more; send this one with another id"
    else:
        if is_same:
            return
        reason = "was given to another curve"
    refusal = Refused(f"id: {json.dumps(message.id, ensure_ascii=False)} {reason}")
    refusal.id = message.id
    raise refusal


def name_and_id(path: Path) -> tuple[str, str]:
    """What the sender called the curve of a file."""
    meta = unpack(path.read_bytes())[1]
    return str(meta["name"]), str(meta["id"])


def _essence(content: bytes) -> bytes:
    """What makes the curve: name, samples, units and constants; not its time, nor what else a script has put beside."""
    curve, meta = unpack(content)
    return pack(replace(curve, acquired_s=None), {"name": meta["name"]}, "<f8")
