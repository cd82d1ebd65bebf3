"""The registry: which models there are, and which folder a name means.

A model is known by "shipped" (the one that came with the program), by its name under the state's ``models``
folder, or by the path of its folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from models.bundle import SHIPPED, BadBundle, Bundle, read


@dataclass(frozen=True, slots=True)
class Entry:
    """One model that was found; ``problem`` says why it cannot be used."""

    name: str
    folder: Path
    bundle: Bundle | None
    problem: str | None = None


def resolve(name: str | Path, models: Path | None = None) -> Path:
    """The folder that a name or a path means; BadBundle when there is none.

    ``models`` is the folder of the lab's own models; a plain name is looked for there first, then as a path.
    """
    if str(name) == "shipped":
        return SHIPPED
    if models is not None and Path(name).name == str(name) and (models / name / "manifest.json").is_file():
        return models / name
    folder = Path(name)
    if not folder.is_dir():
        raise BadBundle(f"no model {str(name)!r}: name a model folder, or 'shipped'")
    return folder


def entries(models: Path | None = None) -> Iterator[Entry]:
    """The shipped model, then every folder under ``models`` that has a manifest, by name."""
    yield _entry("shipped", SHIPPED)
    if models is not None and models.is_dir():
        for folder in sorted(models.iterdir()):
            if not folder.name.startswith(".") and (folder / "manifest.json").is_file():
                yield _entry(folder.name, folder)


def _entry(name: str, folder: Path) -> Entry:
    try:
        return Entry(name, folder, read(folder))
    except BadBundle as error:
        return Entry(name, folder, None, str(error))
