#!/usr/bin/env bash
# Prove both ends of what pyproject.toml allows: the lowest declared versions on the oldest Python,
# the newest ones and the pinned ones (constraints.txt) on the newest Python.
#
#     scripts/check_versions.sh [pytest arguments]     e.g. -m "not slow" (the default), -x tests/test_store.py
#
# OLD and NEW name the Pythons (python3.11, python3.13); WORK is where the environments go (a
# temporary folder). Each end takes some 6 GB there and two minutes, most of it for torch.
set -euo pipefail
cd "$(dirname "$0")/.."
OLD=${OLD:-python3.11}
NEW=${NEW:-python3.13}
WORK=${WORK:-$(mktemp -d)}
[ $# -gt 0 ] || set -- -m "not slow"

python3 -m venv "$WORK/uv"
"$WORK/uv/bin/pip" install --quiet --disable-pip-version-check uv
UV="$WORK/uv/bin/uv"

prove() { # NAME PYTHON uv's-options...
    local name=$1 python=$2
    shift 2
    echo "== $name on $("$python" --version)"
    "$UV" venv --quiet --clear --python "$python" "$WORK/$name"
    "$UV" pip install --quiet --python "$WORK/$name/bin/python" "$@" -e ".[dev,cluster,teasar]"
    "$UV" pip freeze --python "$WORK/$name/bin/python" >"$WORK/$name.txt"
    # Kernels compiled by another numba must not be found, nor overwritten, beside the sources.
    NUMBA_CACHE_DIR="$WORK/$name/kernels" \
        "$WORK/$name/bin/python" -m pytest -p no:cacheprovider "${tests[@]}"
}

tests=("$@")
prove lowest "$OLD" --resolution lowest-direct
prove newest "$NEW" --resolution highest
prove pinned "$NEW" --constraint constraints.txt
echo "both ends pass; the versions stand in $WORK/{lowest,newest,pinned}.txt"
