"""``with`` for whatever has a ``close``."""

from __future__ import annotations

from typing import Self


class Closing:
    """Closed at the end of the block, whatever happened in it."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
