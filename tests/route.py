"""The route of a curve: which modules it enters and which forms it takes, from the file to the event. `make route`.

A service and its readers run under a profile while one real ``.jpk-force`` file is written for them. The curve enters a
*module* when it goes into or comes out of a function of it: its path or name, its samples or what was made of them, or
a form. A *form* is a class of ours that is a value (a dataclass, a named tuple or a msgspec struct), of which a new
instance holds the curve.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
CURVE = ROOT / "daemon" / "curves" / "force-save-0441.jpk-force"
OURS = ("daemon", "deploy", "models")
MOST_MODULES, MOST_FORMS = 30, 10  # wanted
HELD_MODULES, HELD_FORMS = 43, 16  # reached: a test holds that it does not grow

#: Runs in every Python process below the service, before anything else, as Python's own sitecustomize.
PROBE = """
import dataclasses, gc, json, os, sys, threading, time
FOLDER, NAME, OURS = os.environ["ROUTE_FOLDER"], os.environ["ROUTE_NAME"], ("daemon", "deploy", "models")
modules, forms, known, is_on = {}, {}, set(), False

def is_value(kind):
    return dataclasses.is_dataclass(kind) or hasattr(kind, "__struct_fields__") or (
        issubclass(kind, tuple) and hasattr(kind, "_fields"))

def fields(one):
    kind = type(one)
    names = getattr(kind, "__struct_fields__", None) or getattr(kind, "_fields", None)
    names = names or [field.name for field in dataclasses.fields(one)]
    return [getattr(one, name, None) for name in names]

def holds(one, depth=4):
    if depth == 0 or one is None or isinstance(one, (int, float, bool)):
        return False
    if isinstance(one, str):
        return NAME in one
    if isinstance(one, (bytes, bytearray, memoryview)):
        return len(one) >= 500
    if isinstance(one, os.PathLike):
        return NAME in os.fspath(one)
    if hasattr(one, "dtype"):
        return getattr(one, "size", 0) >= 500
    if isinstance(one, (tuple, list)) and not hasattr(one, "_fields"):
        return any(holds(part, depth - 1) for part in one[:8])
    if isinstance(one, dict):
        return any(holds(part, depth - 1) for part in list(one.values())[:40])
    kind = type(one)
    return kind.__module__.split(".")[0] in OURS and is_value(kind) and any(holds(p, depth - 1) for p in fields(one))

def look(one, module, where):
    kind = type(one)
    if isinstance(one, (tuple, list)) and not hasattr(kind, "_fields"):
        for part in one[:4]:
            look(part, module, where)
        return
    is_ours = kind.__module__.split(".")[0] in OURS
    if kind.__qualname__ == "Bundle":  # holds arrays, but those of the model
        return
    name = f"{kind.__module__}.{kind.__qualname__}"
    if (is_ours and not is_value(kind)) or id(one) in known or (module in modules and (not is_ours or name in forms)):
        return
    if holds(one):
        modules.setdefault(module, where)
        if is_ours:
            forms.setdefault(name, where)

def profile(frame, event, arg):
    if not is_on or event not in ("call", "return"):
        return
    module = frame.f_globals.get("__name__", "")
    if module == "__main__":
        spec = frame.f_globals.get("__spec__")
        module = spec.name if spec else module
    if module.split(".")[0] not in OURS:
        return
    where = f"{module}:{frame.f_code.co_qualname if hasattr(frame.f_code, 'co_qualname') else frame.f_code.co_name}"
    try:
        if event == "return":
            look(arg, module, where)
        else:
            for name in frame.f_code.co_varnames[: frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount]:
                look(frame.f_locals.get(name), module, where)
    except Exception as error:
        modules.setdefault(f"probe failed: {error!r}", where)

def watch():
    global is_on
    while True:
        if os.path.exists(FOLDER + "/on") != is_on:
            if not is_on:
                known.update(map(id, gc.get_objects()))
            is_on = not is_on
            if not is_on:
                name = f"{FOLDER}/{os.getpid()}.json"
                with open(name + ".part", "w") as file:
                    json.dump({"modules": modules, "forms": forms}, file)
                os.rename(name + ".part", name)
        time.sleep(0.005)

threading.Thread(target=watch, daemon=True).start()
threading.setprofile(profile)
sys.setprofile(profile)
"""


def trace(curve: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Modules and forms, each with the function where it was met first."""
    from daemon.client.feed import EventListener
    from daemon.client.service_file import TemporaryService

    with tempfile.TemporaryDirectory(prefix="afm-route-") as name:
        folder = Path(name)
        (folder / "sitecustomize.py").write_text(PROBE)
        path = os.pathsep.join(filter(None, [name, os.environ.get("PYTHONPATH")]))
        told = {"ROUTE_FOLDER": name, "ROUTE_NAME": curve.stem, "PYTHONPATH": path}
        told["AFM_TRIAGE_GUARD__CANARIES"] = "false"  # which are curves too
        with (
            patch.dict(os.environ, told),
            TemporaryService() as service,
            EventListener(service.publish) as listener,
        ):
            time.sleep(1.0)
            (folder / "on").touch()
            time.sleep(0.2)  # until every process has seen it
            shutil.copyfile(curve, service.watch / curve.name)
            listener.wait([curve.name], 60.0)
            time.sleep(0.2)
            (folder / "on").unlink()
            time.sleep(1.0)
            found = [json.loads(file.read_text()) for file in folder.glob("*.json")]
    modules: dict[str, str] = {}
    forms: dict[str, str] = {}
    for one in found:
        modules |= one["modules"]
        forms |= one["forms"]
    return modules, forms


def main() -> int:
    """0; 1 when the route has grown, or nothing was found."""
    modules, forms = trace(CURVE)
    for title, found, most in (("modules", modules, MOST_MODULES), ("forms", forms, MOST_FORMS)):
        print(f"{len(found)} {title} (at most {most} wanted)")
        for name, where in sorted(found.items()):
            print(f"  {name:<44} {where}")
    return int(not 0 < len(modules) <= HELD_MODULES or not 0 < len(forms) <= HELD_FORMS)


if __name__ == "__main__":
    sys.exit(main())
