#!/usr/bin/env bash
# Everything that is to be known of a GPU, in the order of its worth: bash benchmarks/gpu/run.sh
# Logs and a summary go to $OUT (./gpu-results). PHASES="smoke tests sanitize rates one runs"
# chooses; END is when to begin nothing more, in seconds.
set -u -o pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python}
OUT=${OUT:-gpu-results}
PHASES=${PHASES:-smoke tests sanitize rates one runs}
END=${END:-1800}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
mkdir -p "$OUT"
: >"$OUT/summary.txt"

note() { echo "[$SECONDS s] $*" | tee -a "$OUT/summary.txt"; }

# phase NAME SECONDS COMMAND...: runs where it is asked for, at most that long and until END.
phase() {
    local name=$1 most=$2 left=$((END - SECONDS)); shift 2
    [[ " $PHASES " == *" ${name%%-*} "* ]] || return 0
    [ "$left" -lt "$most" ] && most=$left
    [ "$most" -lt 10 ] && { note "$name: no time left"; return 0; }
    timeout -k 5 "$most" "$@" >"$OUT/$name.txt" 2>&1
    note "$name: exit status $?"
}

{
    nvidia-smi --query-gpu=name,driver_version,memory.total,mig.mode.current --format=csv
    "$PYTHON" -c 'import cupy; cupy.show_config()'
    "$PYTHON" -m pip list
} >"$OUT/machine.txt" 2>&1
note "$(sed -n 2p "$OUT/machine.txt")"

phase smoke 180 "$PYTHON" benchmarks/gpu/smoke.py
phase tests 300 "$PYTHON" -m pytest -m gpu -q -p no:cacheprovider tests/kernels/cuda tests/engine
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
        APEXFLOW_TEST_ADDRESSES=1 phase "sanitize-$tool" 240 compute-sanitizer --tool $tool \
            --error-exitcode 9 "$PYTHON" -m pytest -m "gpu and addresses" -q \
            -p no:cacheprovider -p no:xdist tests/kernels/cuda
    done
fi
phase rates 240 "$PYTHON" benchmarks/gpu/rates.py --batches 75 512 --json "$OUT/rates.json"
phase one 120 "$PYTHON" benchmarks/gpu/clip.py one
phase runs 400 "$PYTHON" benchmarks/gpu/clip.py runs --workers 1 4 "$(nproc)"
cat "$OUT/summary.txt"
