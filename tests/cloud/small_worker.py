"""A worker in place of a training: writes reports as `imagen launch worker` does.

What it does is the next line of a file, one line an attempt: `step 12`, `exit 70`, `wait`.
"""

import json
import signal
import sys
import time
import urllib.parse
import urllib.request

server, folder, attempt, worker, of, plan = sys.argv[1:]
told = {"worker": int(worker), "of": int(of), "phase": "running", "beat": 0, "code": None}
told |= {"step": None, "said": ""}


def tell(**changes):
    told.update(changes, beat=told["beat"] + 1)
    name = f"{folder}/{attempt}/worker-{worker}.json".removeprefix("gs://").partition("/")[2]
    query = urllib.parse.urlencode({"uploadType": "media", "name": name})
    address = f"{server}/upload/storage/v1/b/bucket/o?{query}"
    data = (json.dumps(told) + "\n").encode()
    urllib.request.urlopen(urllib.request.Request(address, data=data, method="POST")).close()


def stop(*_):
    tell(phase="ended", code=75)
    sys.exit(75)


signal.signal(signal.SIGTERM, stop)
with open(plan) as opened:
    lines = opened.read().splitlines()
for command in lines[min(int(attempt), len(lines)) - 1].split("; "):
    what, _, number = command.partition(" ")
    if what == "step":
        tell(step=f"step {number} of base8")
    elif what == "exit":
        tell(phase="ended", code=int(number), said="so sorry")
        sys.exit(int(number))
    else:
        tell()
        time.sleep(3600)
