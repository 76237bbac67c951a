#!/usr/bin/env bash
# Runs as root at every boot of each worker of a Cloud TPU slice that `imagen launch tpu` created: makes
# the environment, runs `imagen launch worker` until the deadline, and at last deletes the slice if nobody
# else does. What it is to do comes from the metadata server.
#
# By hand, on any machine: IMAGEN_HOME, GCE_METADATA_HOST and PATH decide where everything is.
set -euo pipefail

home=${IMAGEN_HOME:-/opt/imagen}
log=$home/worker.log
server=http://${GCE_METADATA_HOST:-metadata.google.internal}/computeMetadata/v1/instance/attributes
uv_version=0.13.9
python=3.12

say() { printf '%s startup: %s\n' "$(date -u +%FT%TZ)" "$*"; }

# The value of a key of this machine, or nothing.
metadata() {
  curl --silent --fail --retry 5 --retry-connrefused --max-time 10 \
    --header 'Metadata-Flavor: Google' "$server/$1" || true
}

# Whether words are whole numbers of at most 12 digits: bash evaluates all else that stands in $((...)),
# commands too, and takes a 0 at the beginning for octal.
numbers() {
  local word
  for word in "$@"; do
    [[ $word =~ ^(0|[1-9][0-9]{0,11})$ ]] || return 1
  done
}

# Whether every word after the first matches that one, which is a pattern.
all_match() {
  local word
  for word in "${@:2}"; do
    [[ $word =~ ^($1)$ ]] || return 1
  done
}

# Tries a command several times, each time waiting for longer.
again() {
  local delay
  for delay in 2 4 8 16 32 0; do
    if "$@"; then
      return 0
    fi
    say "failed: $*"
    if [[ $delay != 0 ]]; then
      sleep "$((delay * ${IMAGEN_DELAY:-1}))"
    fi
  done
  return 1
}

# The number of this worker among those of all slices, and how many they are, in `worker` and `of`.
count() {
  local environment endpoints slices slice place
  environment=$(metadata tpu-env)
  endpoints=$(metadata worker-network-endpoints)
  place=$(metadata agent-worker-number)
  slices=$(sed -n "s/^MEGASCALE_NUM_SLICES: *'\([0-9]*\)'.*/\1/p" <<<"$environment")
  slice=$(sed -n "s/^MEGASCALE_SLICE_ID: *'\([0-9]*\)'.*/\1/p" <<<"$environment")
  of=$(tr ',' '\n' <<<"${endpoints:-localhost}" | grep -c .)
  numbers "${place:=0}" "${slice:=0}" "${slices:=1}" || refuse "the number of the worker or its slice"
  worker=$((place + slice * of))
  of=$((of * slices))
}

# Ends where the metadata are not as `imagen launch tpu` writes them: what is wrong in them is not printed.
refuse() {
  say "$1 in the metadata is not as imagen launch writes it"
  exit 1
}

# What the launcher hears of a machine whose environment could not be made (70: see imagen_jax/runtime/exit_codes.py) or
# that was taken away meanwhile (143), which is no crash of the program.
# shellcheck disable=SC2329 # called by a trap
report_failure() {
  status=$?
  if [[ $status == 0 ]]; then
    return
  fi
  say "ended with code $status before the command began"
  if [[ $told == 0 ]]; then
    status=70
  fi
  python3 - "$worker" "$of" "$status" "$log" >"$home/report.json" <<'END' || true
import json, sys
worker, of, code, log = sys.argv[1:]
with open(log, errors="replace") as opened:
    said = opened.read()[-4000:]
report = {"worker": int(worker), "of": int(of), "phase": "ended", "beat": 1, "code": int(code)}
print(json.dumps({**report, "step": None, "said": said}))
END
  again gcloud storage cp "$log" "$attempt/worker-$worker.log" || true
  again gcloud storage cp "$home/report.json" "$attempt/worker-$worker.json" || true
  leave
}

# Processes that an earlier start left holding the chips: one device file, one process. The log goes to
# the bucket, so that of a process its name is told, and not its arguments, which may hold secrets.
free_chips() {
  local file process name
  for file in ${IMAGEN_CHIPS:-/dev/accel* /dev/vfio/*}; do
    for process in /proc/[0-9]*; do
      if [[ -e $file && $process != "/proc/$$" ]] && holds "$process" "$file"; then
        name=$(LC_ALL=C tr -cd 'A-Za-z0-9._-' <"$process/comm" || true)
        say "process ${process#/proc/} ($name) holds $file: ended"
        kill -KILL "${process#/proc/}" || true
      fi
    done
  done
  rm -f "${IMAGEN_LOCKFILE:-/tmp/libtpu_lockfile}"
}

holds() {
  find "$1/fd" -lname "$2" 2>/dev/null | grep -q .
}

install_packages() {
  systemctl stop unattended-upgrades.service 2>/dev/null || true
  export DEBIAN_FRONTEND=noninteractive
  again apt-get -o DPkg::Lock::Timeout=600 update
  again apt-get -o DPkg::Lock::Timeout=600 install --yes --no-install-recommends "$@"
}

# The committed code, compared with the digest in its name, and exactly the packages of its lock file.
install_code() {
  local digest
  digest=${code#code-}
  digest=${digest%.tar}
  if [[ ! -e $home/$digest/ready ]]; then
    again gcloud storage cp "$folder/$code" "$home/$code"
    echo "$digest  $home/$code" | sha256sum --check --quiet
    mkdir -p "$home/$digest"
    tar --extract --file "$home/$code" --directory "$home/$digest" --no-same-owner
    again python3 -m pip install --quiet --target "$home/uv" "uv==$uv_version"
    local uv=$home/uv/bin/uv
    export UV_PYTHON_INSTALL_DIR=$home/python UV_CACHE_DIR=$home/cache UV_HTTP_TIMEOUT=120
    again "$uv" venv --clear --python "$python" "$home/$digest/.venv"
    again "$uv" pip sync --python "$home/$digest/.venv/bin/python" --require-hashes \
      "$home/$digest/launch/requirements.lock"
    again "$uv" pip install --python "$home/$digest/.venv/bin/python" --no-deps \
      --no-build-isolation --editable "$home/$digest"
    touch "$home/$digest/ready"
  fi
  export PATH=$home/$digest/.venv/bin:$PATH
  cd "$home/$digest"
}

# The notice of preemption has to arrive at the training.
# shellcheck disable=SC2329 # called by a trap
told() {
  told=1
  if [[ -z $child ]]; then
    exit 143
  fi
  kill -TERM "$child" 2>/dev/null || true
}

# Runs the command until it ends or the run's deadline passes; its exit code in `status` (124: deadline).
run_command() {
  local left=$((until - $(date +%s)))
  timeout --kill-after=600 "$((left > 1 ? left : 1))" "$@" &
  child=$!
  wait "$child" || true
  while kill -0 "$child" 2>/dev/null; do # a signal ends `wait` before the child has ended
    wait "$child" || true
  done
  status=0
  wait "$child" || status=$?
}

# A watcher deletes the slice when the command has ended. Where there is none, it would cost money
# for ever: its machines do so, one after another, as the first of them may be gone.
leave() {
  if [[ $told != 0 ]]; then
    return # this machine is being taken away
  fi
  say "ended with code $status; deleted in $((linger * (worker + 1))) s if nobody does it before"
  sleep "$((linger * (worker + 1)))" &
  child=$!
  wait "$child" || return 0
  again gcloud compute tpus queued-resources delete "$run-$number" "--zone=$zone" --force --async --quiet ||
    say "$run-$number was not deleted and costs money: the service account needs roles/tpu.admin"
}

mkdir -p "$home"
exec >>"$log" 2>&1
worker=0 of=1 told=0 child=
trap told TERM
run=$(metadata imagen-run)
zone=$(metadata imagen-zone)
until=$(metadata imagen-until)
linger=$(metadata imagen-linger)
folder=$(metadata imagen-folder)
number=$(metadata imagen-attempt)
code=$(metadata imagen-code)
image=$(metadata imagen-image)
packages=$(metadata imagen-packages)
generation=$(metadata imagen-generation)
if [[ -z $folder || -z $number ]] || ! numbers "$number"; then
  say "no imagen-folder or no imagen-attempt in the metadata: this machine is not of imagen launch"
  exit 1
fi
all_match '[a-z]([-a-z0-9]*[a-z0-9])?' "$run" || refuse imagen-run
all_match 'gs://[A-Za-z0-9._=/-]+' "$folder" || refuse imagen-folder
attempt=$folder/$number
if ! numbers "$linger"; then
  linger=1800 # what follows deletes the slice then, instead of leaving it for ever
  trap report_failure EXIT
  refuse imagen-linger
fi
trap report_failure EXIT
numbers "$until" || refuse imagen-until
all_match '([a-z0-9][-a-z0-9._:/]*(@sha256:[0-9a-f]{64})?)?' "$image" || refuse imagen-image
all_match '(code-[0-9a-f]{64}\.tar)?' "$code" || refuse imagen-code
all_match '[a-z0-9]*' "$generation" || refuse imagen-generation
count
say "worker $worker of $of, $attempt"

ulimit -n 65536 || ulimit -n "$(ulimit -Hn)"
unset LD_PRELOAD # tcmalloc, on some images, breaks other programs
export JAX_COORDINATOR_PORT=8476
free_chips
if [[ -n $packages ]]; then
  IFS=+ read -r -a wanted <<<"$packages"
  all_match '[a-z0-9][a-z0-9.-]+' "${wanted[@]}" || refuse imagen-packages
  install_packages "${wanted[@]}"
fi
arguments=(launch worker "$folder" --attempt "$number" --worker "$worker" --of "$of")
arguments+=(--generation "$generation" --log "$log")
if [[ -n $image ]]; then
  again gcloud auth configure-docker "${image%%/*}" --quiet
  again docker pull --quiet "$image"
  program=(docker run --rm --privileged --network host --ulimit nofile=65536 --volume "$home:$home")
  program+=(--env JAX_COORDINATOR_PORT --entrypoint imagen "$image")
else
  install_code
  program=(imagen)
fi
say "${program[*]} ${arguments[*]}"
trap - EXIT
run_command "${program[@]}" "${arguments[@]}"
leave
exit "$status"
