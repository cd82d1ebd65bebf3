"""Stops a run once enough curves are kept: counts the events that it reads, then runs a command of yours, and ends.

    afm-triage events --follow --verdict keep | python stop_after.py 50 touch /mnt/afm/STOP

What stops your instrument is yours to say: a file that its script looks for, a request, a relay.
"""

import json
import subprocess
import sys

wanted, command = int(sys.argv[1]), sys.argv[2:]
for kept, line in enumerate(sys.stdin, start=1):
    event = json.loads(line)
    print(f"{kept} of {wanted}: {event['subject']}, score {event['data']['score']:.3g}", flush=True)
    if kept == wanted:
        sys.exit(subprocess.run(command, check=False).returncode)
sys.exit("the events ended before")
