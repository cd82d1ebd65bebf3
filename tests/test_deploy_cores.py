import os
import subprocess
import sys
from pathlib import Path

from deploy.classifier import default_threads, quotas, usable_cores


def test_a_core_is_left_to_the_instrument():
    assert usable_cores() <= len(os.sched_getaffinity(0))
    assert default_threads() == max(1, usable_cores() - 1)


def test_one_core_is_enough():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    code += "from deploy.classifier import default_threads, usable_cores; print(usable_cores(), default_threads())"
    root = Path(__file__).resolve().parents[1]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout == "1 1\n"


def test_a_container_that_bought_less_time_than_it_sees_cores(tmp_path):
    inner = tmp_path / "pod" / "container"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("max 100000\n")
    assert list(quotas(inner)) == []
    (tmp_path / "pod" / "cpu.max").write_text("150000 100000\n")
    assert list(quotas(inner)) == [2]
    (inner / "cpu.max").write_text("50000 100000\n")
    assert list(quotas(inner)) == [1, 2]
    (inner / "cpu.max").write_text("nonsense")
    assert list(quotas(inner)) == [2]
