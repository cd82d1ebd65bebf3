"""What a batch frees is there for the next: no page is fetched from the system twice."""

import subprocess
import sys
from pathlib import Path

COUNT = """
import resource, sys
import numpy as np
from deploy.classifier import keep_freed
if sys.argv[1] == "kept":
    keep_freed()

def batch():
    held = [np.ones(1 << 18) for _ in range(4)]

for _ in range(3):
    batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    return int(subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, check=True).stdout)


def test_memory_is_not_fetched_anew_for_every_batch() -> None:
    assert faults("kept") < 200 < 4000 < faults("given back")


HEAPS = """
import ctypes, pathlib, sys, threading
from deploy.classifier import share_heaps
if sys.argv[1] == "shared":
    share_heaps()
libc, begun, over = ctypes.CDLL(None), threading.Barrier(13), threading.Event()

def hold():
    held = bytes(100_000)
    begun.wait()
    over.wait()

threads = [threading.Thread(target=hold) for _ in range(12)]
for thread in threads:
    thread.start()
begun.wait()
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
over.set()
print(pathlib.Path(sys.argv[2]).read_text().count("<heap "))
"""


def heaps(how: str, file: Path) -> int:
    return int(subprocess.run([sys.executable, "-c", HEAPS, how, str(file)], capture_output=True, check=True).stdout)


def test_the_threads_of_a_service_do_not_keep_a_heap_each(tmp_path: Path) -> None:
    assert heaps("shared", tmp_path / "shared") <= 3 < 8 <= heaps("as usual", tmp_path / "usual")
