#!/usr/bin/env bash
# Prove both ends of what pyproject.toml allows: the lowest declared versions on the oldest Python,
# the newest ones and the pinned ones (constraints.txt) on the newest Python.
#
#     scripts/check_versions.sh [pytest arguments]     e.g. -m "not slow" (the default), -x tests/test_store.py
#
# Then the wheel and the sdist, on the oldest, the middle and the newest Python.
#
# OLD, MIDDLE and NEW name the Pythons (python3.11, python3.12, python3.13); WORK is where the environments go (a
# temporary folder). Each end takes some 6 GB there and two minutes, most of it for torch.
set -euo pipefail
cd "$(dirname "$0")/.."
OLD=${OLD:-python3.11}
MIDDLE=${MIDDLE:-python3.12}
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

# What is handed out: the wheel, tried by the tests that come in the sdist, far from this checkout.
hand_out() { # NAME PYTHON
    local name=$1 python=$2
    echo "== wheel and sdist on $("$python" --version)"
    "$UV" venv --quiet --clear --python "$python" "$WORK/$name"
    "$UV" pip install --quiet --python "$WORK/$name/bin/python" --constraint constraints.txt \
        "$(echo "$WORK"/dist/*.whl)[dev,cluster,teasar]"
    mkdir -p "$WORK/$name/sdist"
    tar -xzf "$WORK"/dist/*.tar.gz -C "$WORK/$name/sdist" --strip-components 1
    mv "$WORK/$name/sdist/volprep" "$WORK/$name/sdist/.volprep" # or it would be tried, not the wheel
    ln -s "$("$WORK/$name/bin/python" -P -c 'import os, volprep; print(os.path.dirname(volprep.__file__))')" \
        "$WORK/$name/sdist/volprep"
    (cd "$WORK/$name/sdist" && "$WORK/$name/bin/python" -m pytest -p no:cacheprovider "${tests[@]}")
}

rm -rf "$WORK/dist"
"$UV" build --quiet --out-dir "$WORK/dist" .
hand_out given "$OLD"
hand_out middle "$MIDDLE"
hand_out latest "$NEW"
prove lowest "$OLD" --resolution lowest-direct
prove newest "$NEW" --resolution highest
prove pinned "$NEW" --constraint constraints.txt
echo "both ends and what is handed out pass; the versions stand in $WORK/{lowest,newest,pinned}.txt"
