#!/usr/bin/env bash
# From a fresh clone to images: first from the cascades in the package, then from one trained here:
# environment, images, dataset, captions, three stages, a grid and its scores.
#   bash launch/quickstart.sh [folder]      about 12 minutes on two CPU cores
# Run it again and it resumes where it stopped. VENV and PYTHON choose the environment.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${1:-runs/quickstart}"
prompts=launch/quickstart_prompts.txt # of one object each; those of the box have two and patterns
venv="${VENV:-.venv}"
started=$SECONDS

phase() { printf '\n== %s  [%d:%02d]\n' "$1" $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)); }

phase "1/7 environment in $venv"
if [ ! -x "$venv/bin/imagen" ]; then
  "${PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --upgrade pip
  "$venv/bin/python" -m pip install --progress-bar on --editable ".[plots]" | grep -E '^(Collecting|Successfully)' || true
fi
imagen="$venv/bin/imagen"
"$imagen" --version >/dev/null # an installation that was cut short fails here

phase "2/7 sampling from the embedded cascades, which come with the package"
"$imagen" sample shapes --out "$out/box" --seed 0 --prompts-file launch/prompts.txt
"$imagen" sample emoji --out "$out/emoji" --seed 0 --prompts-file launch/emoji_prompts.txt
echo "images of the embedded cascades: $out/box/grid.png and $out/emoji/grid.png"

phase "3/7 dataset: captioned shapes, drawn here"
"$imagen" data build shapes/quickstart --data-dir "$out/data"

phase "4/7 captions, encoded once by the frozen T5"
"$imagen" encode quickstart --data-dir "$out/data"

phase "5/7 training three stages: 16, 64, 256 px"
"$imagen" train quickstart --workdir "$out/cascade" --data-dir "$out/data"

phase "6/7 sampling"
"$imagen" sample "$out/cascade" --out "$out/samples" --seed 0 --prompts-file "$prompts"

phase "7/7 evaluating"
"$imagen" eval "$out/cascade" --out "$out/evaluation"

phase "done"
echo "embedded:      $out/box/grid.png, $out/emoji/grid.png"
echo "trained here:  $out/samples/grid.png"
echo "one page:      $out/evaluation/index.html"
