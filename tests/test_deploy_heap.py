"""What a batch frees is there for the next: no page is fetched from the system twice."""

import subprocess
import sys

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
