"""The child: a part of the bench in a process of its own, so that no part disturbs another.

``python -m daemon.bench.child TASK`` takes a JSON object from standard input and prints one.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daemon.common.errors import UserError
from daemon.processes.child import run_errand
from deploy.classifier import EngineFault, NoEngine

_ROOT = Path(__file__).resolve().parents[2]
#: Task -> module and function of ``(request) -> dict``.
TASKS = {
    "stages": ("daemon.bench.stages", "measure"),
    "engine": ("daemon.bench.engines", "measure_one"),
    "recipe": ("daemon.bench.recipe", "measure"),
}


class ChildFailed(Exception):
    """The child ended without an answer; the text is its last line."""


def call(task: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """What the task's function makes of ``request``. Raises ChildFailed."""
    path = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "daemon.bench.child", task]
    run = run_errand(command, said=json.dumps(request), env={**os.environ, "PYTHONPATH": path})
    if run.returncode:
        words = run.stderr.strip().splitlines() or [f"it ended with {run.returncode}"]
        raise ChildFailed(words[-1])
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


def main(task: str) -> None:
    """Whatever a library prints goes to standard error; the answer alone goes to standard output."""
    request = json.load(sys.stdin)
    module, function = TASKS[task]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            module, function = TASKS[task]
            answer = getattr(importlib.import_module(module), function)(request)
    except (UserError, NoEngine, EngineFault) as error:  # what a user can do something about
        sys.exit(str(error))
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1])
