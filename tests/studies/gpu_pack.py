"""The pack: what a machine with a GPU, another Python and no network lacks for study gpu; and the study there.

    python -m tests.studies.gpu_pack --out build/gpu-pack          where pip works: no GPU is needed, two minutes
    python3 -m tests.studies.gpu_pack --run build/gpu-pack OUT     there, beside a copy of this repository

The first gathers wheels for that machine's Python (torch-tensorrt-rtx, TensorRT-RTX, msgspec), takes away what running
does not need and packs the rest into one file; torch, numpy, safetensors and rich must be there. The second unpacks it
into a folder of its own, runs the study and leaves ``gpu.json`` and ``gpu.md`` in OUT, written part by part. Nothing
but Python's own library is imported here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACK, TELLS = "site.tar.xz", "pack.json"
#: torch-tensorrt-rtx belongs to one minor version of torch, and to one TensorRT-RTX.
RTX_OF = {"2.11": "1.4.0.76", "2.13": "1.5.0.114"}
_FILTERS = ({"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 256 << 20})  # machine code
#: What the lean wheels of these have no use for at run time: headers, and a program that converts files.
_IDLE = ("torch_tensorrt/include", "torch_tensorrt/bin")
#: torch-tensorrt 2.11 imports this folder where it finds it, and the import fails: its half in the bindings is missing.
_BROKEN, _OTHER_HALF = "tensorrt_rtx/plugin", "tensorrt_rtx_bindings/plugin"


def wheels_of(torch: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """For a minor version of torch: wheels for that Python, and sources from which pip makes wheels for any."""
    rtx = RTX_OF[torch]
    bound = (f"tensorrt-rtx-cu13-libs=={rtx}", f"tensorrt-rtx-cu13-bindings=={rtx}", f"torch-tensorrt-rtx=={torch}.0")
    return (*bound, "dllist", "msgspec>=0.19"), (f"tensorrt-rtx=={rtx}", f"tensorrt-rtx-cu13=={rtx}")


def pack(out: Path, python: str, torch: str) -> Path:
    """Writes ``out``/site.tar.xz and what it holds as JSON beside it. Raises SystemExit where pip cannot get it."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="afm-triage-", dir=out) as name:
        folder = Path(name)
        bound, free = wheels_of(torch)
        platforms = [f"manylinux_2_{minor}_x86_64" for minor in (17, 27, 28)] + ["manylinux2014_x86_64"]
        there = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
        there += [word for platform in platforms for word in ("--platform", platform)]
        _pip(["download", "--no-deps", *there, "-d", name, *bound])
        _pip(["wheel", "--no-deps", "-w", name, *free])
        site = folder / "site"
        for wheel in sorted(folder.glob("*.whl")):
            zipfile.ZipFile(wheel).extractall(site)
        _shrink(site)
        _write(out / PACK, site)
        wheels = sorted(path.name for path in folder.glob("*.whl"))
    told = {"python": python, "torch": torch, "wheels": wheels, "sha256": _digest(out / PACK)}
    (out / TELLS).write_text(json.dumps(told, indent=1) + "\n")
    return out / PACK


def _pip(words: Sequence[str]) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *words]
    done = subprocess.run(command, check=False, timeout=1200)
    if done.returncode:
        sys.exit(f"pip could not get the wheels: {' '.join(words)}")


def _shrink(site: Path) -> None:
    for idle in _IDLE:
        shutil.rmtree(site / idle, ignore_errors=True)
    if not (site / _OTHER_HALF).is_dir():
        shutil.rmtree(site / _BROKEN, ignore_errors=True)
    if shutil.which("strip"):
        for library in _libraries(site):
            subprocess.run(["strip", "--strip-unneeded", library], check=False, timeout=120, stderr=subprocess.DEVNULL)


def _libraries(site: Path) -> Iterator[Path]:
    return (path for path in site.rglob("*.so*") if path.is_file())


def _write(pack: Path, site: Path) -> None:
    fresh = pack.with_suffix(".unfinished")
    with lzma.open(fresh, "wb", filters=_FILTERS) as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
        for path in sorted(site.rglob("*")):
            if path.is_file():
                tar.add(path, str(path.relative_to(site)))
    fresh.replace(pack)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run(pack: Path, out: Path, options: Sequence[str]) -> int:
    """Unpacks, and runs the study; its exit code, or 65 where the pack is damaged or for another Python."""
    begun_s = time.monotonic()
    told = json.loads((pack / TELLS).read_text())
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if told["python"] != here:
        print(f"the pack is for Python {told['python']}, and this is {here}: pack again with --python {here}")
        return 65
    if _digest(pack / PACK) != told["sha256"]:
        print(f"{pack / PACK} is damaged: copy it again")
        return 65
    with tempfile.TemporaryDirectory(prefix="afm-triage-") as site:
        with tarfile.open(pack / PACK) as tar:
            tar.extractall(site, filter="data")
        print(f"unpacked in {time.monotonic() - begun_s:.1f} s", flush=True)
        out.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join([str(ROOT), site])  # of one package the machine's own version comes last
        settings = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "GOMP_SPINCOUNT": "0"}
        command = [sys.executable, "-m", "tests.studies", "gpu", "--out", str(out / "gpu.json")]
        command += ["--page", str(out / "gpu.md"), *options]
        return subprocess.run(command, cwd=ROOT, env=settings, check=False, timeout=1200).returncode


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.studies.gpu_pack", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, metavar="DIR", help="pack into this folder")
    parser.add_argument("--python", default="3.12", help="of the machine with the GPU (3.12)")
    parser.add_argument("--torch", default="2.11", choices=sorted(RTX_OF), help="that it has (2.11)")
    parser.add_argument("--run", nargs=2, type=Path, metavar=("PACK", "OUT"), help="run the study there")
    found, options = parser.parse_known_args(words)
    if found.run:
        packed, out = found.run
        return run(packed, out, options)
    if not found.out or options:
        parser.error("--out DIR to pack, --run PACK OUT [options of the study] to run")
    packed = pack(found.out, found.python, found.torch)
    print(f"{packed}: {packed.stat().st_size / 2**20:.1f} MiB, for Python {found.python} and torch {found.torch}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
