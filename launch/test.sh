#!/usr/bin/env bash
# A virtual environment, the package with its test extra, and the test suite.
#   bash launch/test.sh [pytest arguments]      VENV=folder chooses another environment
set -euo pipefail
cd "$(dirname "$0")/.."
venv="${VENV:-.venv}"
python="${PYTHON:-python3}"
if [ ! -x "$venv/bin/python" ]; then
  echo "== virtual environment in $venv"
  "$python" -m venv "$venv"
fi
echo "== installing imagen_jax and its test extra"
"$venv/bin/python" -m pip install --quiet --upgrade pip
"$venv/bin/python" -m pip install --quiet --editable ".[test]"
echo "== ruff"
"$venv/bin/ruff" format --check .
"$venv/bin/ruff" check .
echo "== mypy"
"$venv/bin/mypy"
echo "== pytest"
exec "$venv/bin/python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=10 "$@"
