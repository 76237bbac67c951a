#!/usr/bin/env bash
# From a fresh clone to pictures: environment, dataset, captions, three stages, a grid and its scores.
#   bash launch/quickstart.sh [folder]      about 13 minutes on two CPU cores
# Run it again and it goes on where it stopped. VENV and PYTHON choose the environment.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${1:-runs/quickstart}"
venv="${VENV:-.venv}"
started=$SECONDS

phase() { printf '\n== %s  [%d:%02d]\n' "$1" $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)); }

phase "1/6 environment in $venv"
if [ ! -x "$venv/bin/imagen" ]; then
  "${PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --upgrade pip
  "$venv/bin/python" -m pip install --progress-bar on --editable . | grep -E '^(Collecting|Successfully)' || true
fi
imagen="$venv/bin/imagen"
"$imagen" --version >/dev/null # an installation that was cut short fails here

phase "2/6 dataset: captioned shapes, drawn here"
"$imagen" data build shapes/quickstart --data-dir "$out/data"

phase "3/6 captions, encoded once by the frozen T5"
"$imagen" encode quickstart --data-dir "$out/data"

phase "4/6 training three stages: 16, 64, 256 px"
"$imagen" train quickstart --workdir "$out/cascade" --data-dir "$out/data"

phase "5/6 painting"
"$imagen" sample "$out/cascade" --out "$out/samples" --seed 0 --prompts-file launch/prompts.txt

phase "6/6 judging"
"$imagen" eval "$out/cascade" --out "$out/evaluation"

phase "done"
echo "pictures:  $out/samples/grid.png"
echo "one page:  $out/evaluation/index.html"
