"""What a laboratory's machine must be spared: reports to a maker, pinned threads, a precision that nobody asked for."""

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from deploy.openvino_engine import HINTS, compiled, has_bf16, openvino

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")

#: Tells of every connection, every name that is looked up, and every process that could do so instead: the reporter
#: sends from one of its own.
WATCH = """
import sys
def told(event, arguments):
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
        print("network:", event)
    if event in ("os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system", "subprocess.Popen"):
        print("network:", event)
sys.addaudithook(told)
"""


def run(code: str, home: Path) -> str:
    """As a user who never heard of openvino, and on no machine that it takes for a test's."""
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    command = [sys.executable, "-c", WATCH + code]
    done = subprocess.run(
        command, cwd=ROOT, env={**environment, "HOME": str(home)}, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_nothing_is_reported_to_anybody(tmp_path):
    said = run(
        "from deploy.serving import Model; from deploy.classifier import EngineRequest\n"
        "model = Model.load(wish=EngineRequest(engine='openvino'))\n"
        "print(model.engine, 'torch' in sys.modules, sys.modules.get('openvino_telemetry'))",
        tmp_path,
    )
    assert said.startswith("openvino-cpu-")
    assert said.endswith(" False None\n")
    assert "network:" not in said
    assert list(tmp_path.iterdir()) == []  # neither ~/intel nor anything else


def test_the_watch_of_this_test_would_see_it(tmp_path):
    """What happens with a reporter of that name, a harmless one: openvino would ask it to report at import."""
    (tmp_path / "openvino_telemetry" / "backend").mkdir(parents=True)
    (tmp_path / "openvino_telemetry" / "backend" / "__init__.py").write_text("backend_ga4 = None\n")
    (tmp_path / "openvino_telemetry" / "__init__.py").write_text(
        "import os\n"
        "class Telemetry:\n"
        "    def __init__(self, **settings): pass\n"
        "    def send_event(self, *event): print('reported:', *event); os.waitpid(os.fork() or os._exit(0), 0)\n"
    )
    start = f"sys.path.insert(0, {str(tmp_path)!r})\n"
    loud = run(start + "import openvino", tmp_path)
    assert "reported: ov import" in loud
    assert "network: os.fork" in loud
    assert run(start + "from deploy.openvino_engine import openvino; openvino()", tmp_path) == ""


def test_nobody_else_imports_openvino():
    paths = [path for layer in ("models", "deploy", "daemon", "tests") for path in (ROOT / layer).rglob("*.py")]
    for path, text in ((path, path.read_text()) for path in paths):
        for node in ast.walk(ast.parse(text)) if "openvino" in text else ():
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names = [name for name in names if name.split(".")[0] == "openvino"]
            assert not names or path.name == "openvino_engine.py", f"{path}: use deploy.openvino_engine"


def test_threads_stay_free_and_precision_is_said():
    op = openvino().opset13
    x = op.parameter([1, 8], float)
    model = openvino().Model([op.result(op.relu(x))], [x])
    affinity = {thread: os.sched_getaffinity(int(thread)) for thread in os.listdir("/proc/self/task")}
    for precision in ("fp32", "bf16") if has_bf16() else ("fp32",):
        request = compiled(model, precision, 2)
        of = request.get_compiled_model().get_property
        assert of("ENABLE_CPU_PINNING") is False
        assert of("INFERENCE_NUM_THREADS") <= 2
        assert of("NUM_STREAMS") == 1
        assert of("INFERENCE_PRECISION_HINT").to_string() == HINTS[precision]
    allowed = os.sched_getaffinity(0)
    assert all(cores == allowed for cores in affinity.values())
    assert all(os.sched_getaffinity(int(thread)) == allowed for thread in os.listdir("/proc/self/task"))


def test_bf16_is_taken_only_where_the_processor_computes_it():
    flags = Path("/proc/cpuinfo").read_text().split()
    assert has_bf16() == bool({"avx512_bf16", "amx_bf16"}.intersection(flags))
