"""The wire: how an event becomes one line of JSON, in the ledger as over ZeroMQ, and how it is read again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import msgspec
from msgspec import Struct

#: An event as it comes from the wire or the ledger: another version of the program may have written it.
Event = dict[str, Any]


def encode(value: Struct | Mapping[str, Any]) -> bytes:
    """UTF-8 JSON in one line; what is not a finite number becomes null, because JSON has no NaN.

    Python's own encoder writes it: events written by earlier versions are the same bytes.
    """
    plain = as_plain(value)
    try:
        line = _LINE.encode(plain)
    except ValueError:  # NaN or infinite: seldom, so that nothing is looked at twice
        line = _LINE.encode(_finite(plain))
    try:
        return line.encode()
    except UnicodeEncodeError:  # a file name that is not UTF-8: escaped, so that it comes back unchanged
        return _ASCII.encode(_finite(plain)).encode()


def decode(body: bytes) -> Event:
    """One event from the wire. Raises ValueError for anything that is not a JSON object."""
    event = json.loads(body)
    if not isinstance(event, dict):
        raise ValueError("an event is a JSON object")
    return event


def as_plain(value: Struct | Mapping[str, Any]) -> dict[str, Any]:
    """Dictionaries, lists, texts and numbers, in the order of the fields; fields that are UNSET are left out."""
    plain: dict[str, Any] = msgspec.to_builtins(value, enc_hook=_finite)
    return plain


def _finite(value: Any) -> Any:
    """Only what JSON knows; numbers of numpy become numbers of Python."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    raise TypeError(f"{type(value).__name__} has no place in an event")


_LINE, _ASCII = (
    json.JSONEncoder(ensure_ascii=ascii_only, allow_nan=False, separators=(",", ":")) for ascii_only in (False, True)
)
