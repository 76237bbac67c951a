"""A stand-in for gcloud: queued resources in a folder, Cloud Storage on a server of the tests.

It refuses every command and flag that is not in `documented.json`, and what Google refuses: names
in use, nodes without a number. What becomes of each resource is told beforehand in `plan.json`:

    {"resources": [[event, ...], ...], "errors": {"describe": ["UNAVAILABLE: ...", "no answer"]},
     "workers": 2, "worker": ["python", ...]}

A list of events for each resource in the order of their creation, one for each look at it
(`queued-resources describe`); the last one stays. Events: a state of queued resources; "preempt"
(SIGTERM to the workers, SUSPENDED), "kill" (workers gone, states as before: they lie), "lose" (one
worker gone), "vanish" (the resource is gone), "preempt@12": the same once a worker reached step 12.
Workers start when a resource is first ACTIVE; their words are filled in with {folder}, {attempt},
{worker}, {of} and {port}. After "no answer" a command does its work and hangs.
"""

import fcntl
import fnmatch
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

STATE = Path(os.environ["FAKE_GCLOUD"])
SERVER = os.environ.get("STORAGE_EMULATOR_HOST", "")
DOCUMENTED = json.loads((Path(__file__).parent / "documented.json").read_text())
STATES = ("CREATING", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE", "FAILED", "SUSPENDED")
QUEUED = "compute tpus queued-resources"


def fail(sentence):
    print(f"ERROR: (gcloud) {sentence}", file=sys.stderr)
    sys.exit(1)


def main(arguments):
    words = [w for w in arguments if not w.startswith("--")]
    command = next(
        (
            c
            for n in range(len(words), 0, -1)
            if (c := " ".join(words[:n])) in DOCUMENTED["commands"]
        ),
        None,
    )
    if command is None:
        fail(f"Invalid choice: {' '.join(words)!r}.")
    given = {a.partition("=")[0]: a.partition("=")[2] for a in arguments if a[:2] == "--"}
    allowed = {*DOCUMENTED["commands"][command], *DOCUMENTED["everywhere"]}
    if unknown := sorted(set(given) - allowed):
        fail(f"unrecognized arguments: {unknown[0]} (of gcloud {command})")
    with (STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (STATE / "calls").open("a") as calls:
            calls.write(json.dumps(arguments) + "\n")
        plan = json.loads((STATE / "plan.json").read_text())
        errors = plan.get("errors", {}).get(command.rpartition(" ")[2], [])
        error = errors.pop(0) if errors else ""
        (STATE / "plan.json").write_text(json.dumps(plan))
        if error not in ("", "no answer"):
            fail(error)
        operands = words[len(command.split()) :]
        COMMANDS[command](operands, given, plan)
    if error == "no answer":
        time.sleep(3600)


# Queued resources ------------------------------------------------------------


def resources():
    return sorted((STATE / "resources").glob("*.json"), key=lambda f: f.stat().st_mtime_ns)


def read(name):
    file = STATE / "resources" / f"{name}.json"
    if not file.is_file():
        fail(f"NOT_FOUND: Resource 'projects/p/locations/z/queuedResources/{name}' was not found")
    return json.loads(file.read_text())


def keep(resource):
    file = STATE / "resources" / f"{resource['name']}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(resource))


def create(operands, given, plan):
    (name,) = operands
    for flag in ("--zone", "--accelerator-type", "--runtime-version"):
        if not given.get(flag):
            fail(f"argument {flag}: Must be specified.")
    if ("--node-id" in given) == ("--node-count" in given):
        fail("Exactly one of (--node-id | --node-count) must be specified.")
    if not re.fullmatch("[a-z][-a-z0-9]{0,61}[a-z0-9]", name):
        fail(f"INVALID_ARGUMENT: {name}")
    if not Path(given["--metadata-from-file"].partition("=")[2]).is_file():
        fail("argument --metadata-from-file: no such file")
    if (STATE / "resources" / f"{name}.json").is_file():
        fail(f"ALREADY_EXISTS: Resource {name!r} already exists")
    if "--valid-until-duration" in given and int(given["--valid-until-duration"][:-1]) <= 0:
        fail("INVALID_ARGUMENT: valid-until-duration")
    made = plan.setdefault("made", 0)
    plan["made"] = made + 1
    (STATE / "plan.json").write_text(json.dumps(plan))
    script = plan["resources"]
    metadata = dict(pair.split("=", 1) for pair in given["--metadata"].split(","))
    labels = dict(pair.split("=", 1) for pair in given["--labels"].split(","))
    several = int(given.get("--node-count", "1"))
    keep(
        {
            "name": name,
            "script": script[min(made, len(script) - 1)],
            "state": "CREATING",
            "node_state": "CREATING",
            "metadata": metadata,
            "labels": labels,
            "nodes": [name] if "--node-id" in given else [f"{name}-{i}" for i in range(several)],
            "pids": [],
            "started": False,
        }
    )


def describe(operands, given, plan):
    resource = read(operands[0])
    advance(resource, plan)
    if resource["state"] == "GONE":
        (STATE / "resources" / f"{resource['name']}.json").unlink()
        read(resource["name"])
    keep(resource)
    print(json.dumps(shown(resource)))


def shown(resource):
    state = {"state": resource["state"]}
    if resource["state"] == "FAILED":
        state["failedData"] = {"error": {"code": 8, "message": "no more capacity in the zone"}}
    specs = [{"nodeId": n, "node": {"labels": resource["labels"]}} for n in resource["nodes"]]
    name = f"projects/p/locations/z/queuedResources/{resource['name']}"
    return {"name": name, "state": state, "tpu": {"nodeSpec": specs}}


def advance(resource, plan):
    """The next event of the script; the last one stays."""
    event = resource["script"][0]
    what, _, when = event.partition("@")
    if when and reached(resource) < int(when):
        return
    if len(resource["script"]) > 1:
        resource["script"] = resource["script"][1:]
    if what in STATES:
        resource["state"] = what
        resource["node_state"] = "READY" if what == "ACTIVE" else "CREATING"
        if what == "ACTIVE" and not resource["started"]:
            start(resource, plan)
    elif what == "preempt":
        end(resource["pids"], signal.SIGTERM)
        resource["state"], resource["node_state"] = "SUSPENDED", "PREEMPTED"
    elif what == "kill":
        end(resource["pids"], signal.SIGKILL)
    elif what == "lose":
        end(resource["pids"][-1:], signal.SIGKILL)
    elif what == "node preempt":
        end(resource["pids"], signal.SIGTERM)
        resource["node_state"] = "PREEMPTED"
    elif what == "vanish":
        end(resource["pids"], signal.SIGKILL)
        resource["state"] = "GONE"
    else:
        raise SystemExit(f"no such event: {what}")


def reached(resource):
    """The last step of worker 0."""
    folder = resource["metadata"]["imagen-folder"] + "/" + resource["metadata"]["imagen-attempt"]
    try:
        told = json.loads(fetch(folder + "/worker-0.json"))
    except urllib.error.HTTPError:
        return -1
    return int((re.findall(r"step (\d+)", told.get("step") or "") or [-1])[0])


def start(resource, plan):
    resource["started"] = True
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    of = plan.get("workers", 1)
    for worker in range(of):
        values = {
            "{folder}": resource["metadata"]["imagen-folder"],
            "{attempt}": resource["metadata"]["imagen-attempt"],
            "{worker}": str(worker),
            "{of}": str(of),
            "{port}": str(port),
        }
        words = plan["worker"]
        for key, value in values.items():
            words = [word.replace(key, value) for word in words]
        log = (STATE / f"{resource['name']}-worker-{worker}.log").open("w")
        started = subprocess.Popen(
            words,
            env={**os.environ, "PORT": str(port)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            close_fds=True,
        )
        resource["pids"].append(started.pid)


def end(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number) if number != signal.SIGKILL else os.killpg(pid, number)
        except ProcessLookupError:
            continue


def wait_for(pids, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until and any(alive(pid) for pid in pids):
        time.sleep(0.05)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def delete(operands, given, plan):
    resource = read(operands[0])
    if "--force" not in given and resource["state"] == "ACTIVE":
        fail("FAILED_PRECONDITION: the resource has nodes")
    # Machines have their 30 s after the notice; those that were told have been ending since.
    wait_for(resource["pids"], plan.get("grace", 1.0) if resource["state"] == "SUSPENDED" else 0)
    end(resource["pids"], signal.SIGKILL)
    (STATE / "resources" / f"{resource['name']}.json").unlink()


def listing(operands, given, plan):
    found = [json.loads(file.read_text()) for file in resources()]
    if pattern := given.get("--filter"):
        found = [r for r in found if re.search(pattern.partition("name~")[2], "/" + r["name"])]
    print(json.dumps([shown(r) for r in found]))


def node(operands, given, plan):
    for file in resources():
        resource = json.loads(file.read_text())
        if operands[0] in resource["nodes"] and resource["started"]:
            share = plan.get("workers", 1) // len(resource["nodes"])
            points = [{"ipAddress": f"10.0.0.{i}"} for i in range(share)]
            print(json.dumps({"state": resource["node_state"], "networkEndpoints": points}))
            return
    fail(f"NOT_FOUND: {operands[0]} was not found")


def ssh(operands, given, plan):
    read(operands[0])


# Cloud Storage ---------------------------------------------------------------


def address(place, upload=False):
    bucket, _, name = place.removeprefix("gs://").partition("/")
    if upload:
        query = urllib.parse.urlencode({"uploadType": "media", "name": name})
        return f"{SERVER}/upload/storage/v1/b/{bucket}/o?{query}"
    return f"{SERVER}/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}?alt=media"


def fetch(place):
    with urllib.request.urlopen(address(place), timeout=60) as answer:
        return answer.read()


def matching(place):
    """Objects; `*` does not cross a slash."""
    bucket, _, pattern = place.removeprefix("gs://").partition("/")
    prefix = re.split(r"[*?]", pattern)[0]
    query = urllib.parse.urlencode({"prefix": prefix})
    with urllib.request.urlopen(f"{SERVER}/storage/v1/b/{bucket}/o?{query}", timeout=60) as answer:
        names = [item["name"] for item in json.load(answer).get("items", [])]
    slashes = pattern.count("/")
    if pattern.endswith("/"):
        below = sorted({n[len(pattern) :].partition("/")[0] for n in names})
        return [f"gs://{bucket}/{pattern}{n}" for n in below]
    kept = [n for n in names if fnmatch.fnmatchcase(n, pattern) and n.count("/") == slashes]
    return [f"gs://{bucket}/{n}" for n in kept]


def cp(operands, given, plan):
    if operands[0] == "-r":
        _, folder, place = operands
        files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
        for file in files:
            cp([str(file), f"{place}/{file.relative_to(folder)}"], given, plan)
        return None
    source, place = operands
    if given.get("--if-generation-match") == "0" and place in matching(place):
        fail("HTTPError 412: At least one of the pre-conditions you specified did not hold.")
    if source.startswith("gs://"):
        return Path(place).write_bytes(fetch(source))
    content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    request = urllib.request.Request(address(place, upload=True), data=content, method="POST")
    return urllib.request.urlopen(request, timeout=60).close()


def cat(operands, given, plan):
    found = matching(operands[0])
    if not found:
        fail(f"The following URLs matched no objects or files:\n{operands[0]}")
    for place in found:
        content = fetch(place)
        first, _, last = given.get("--range", "0-").rpartition("-")
        sys.stdout.buffer.write(
            content[int(first) : int(last or -1) + 1 or None] if first else content[-int(last) :]
        )


def ls(operands, given, plan):
    found = matching(operands[0])
    if not found:
        fail("One or more URLs matched no objects.")
    print("\n".join(found))


def configure_docker(operands, given, plan):
    pass


COMMANDS = {
    "auth configure-docker": configure_docker,
    f"{QUEUED} create": create,
    f"alpha {QUEUED} create": create,
    f"{QUEUED} describe": describe,
    f"{QUEUED} delete": delete,
    f"{QUEUED} list": listing,
    f"{QUEUED} ssh": ssh,
    "compute tpus tpu-vm describe": node,
    "storage cp": cp,
    "storage cat": cat,
    "storage ls": ls,
}

if __name__ == "__main__":
    main(sys.argv[1:])
