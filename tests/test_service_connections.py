"""The door: shut when the open files run out, with some kept back; open again when they are free."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (300, 400))
from daemon.common.sockets import Connections

def listening():
    one = socket.socket()
    one.bind(("127.0.0.1", 0))
    one.listen(16)
    return one, one.getsockname()[1]

def gets_in(port):
    try:
        socket.create_connection(("127.0.0.1", port), 0.5).close()
    except TimeoutError:
        return False
    return True

first, door = listening()
second, apart = listening()
connections = Connections(apart)
assert connections.look() == "" and gets_in(door)
held = []
try:
    while True:
        held.append(socket.socket())
except OSError:
    pass
print(len(held) < 230, "files are new ones wait" in connections.look().replace("and connections are open: ", "are "))
spare = [socket.socket() for _ in range(100)]  # what was kept back
print(gets_in(door), gets_in(apart))
for one in spare + held[:20]:
    one.close()
print(connections.look() != "", "a few free files do not open it")
for one in held:
    one.close()
print(connections.look(), gets_in(door), resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 300)
"""


def test_the_door_is_shut_before_the_last_files_are_gone_and_opens_again() -> None:
    words = [sys.executable, "-c", CODE]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "True True",
        "False True",
        "True a few free files do not open it",
        " True True",
    ]
