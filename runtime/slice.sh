#!/bin/sh
# A slice of a training on a machine that is there for minutes only:
#
#   sh runtime/slice.sh CONFIG MESHES.zip OUT MINUTES
#
# MESHES.zip is of `python -m runtime pack`. OUT gets the weights in parts of 15 MiB, which the next
# slice goes on from: what stays behind is the optimisers' state, which warms up again. Wheels in
# build/wheels, for what the machine's Python lacks, are installed beside it. PYTHON names another
# Python, DEVICE another device.
set -eu
config=$1 meshes=$2 out=$3 minutes=$4
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH="$work/site:$PWD"
if [ -d build/wheels ]; then
  "$python" -m pip install --quiet --no-index --no-deps --target "$work/site" build/wheels/*.whl
fi
"$python" -m zipfile -e "$meshes" "$work/meshes"
mkdir -p "$work/run" "$out"
set --
if [ -f "$out/weights.aa" ]; then
  cat "$out"/weights.?? >"$work/run/model.safetensors"
  [ ! -f "$out/metrics.jsonl" ] || cp "$out/metrics.jsonl" "$work/run/"
  set -- --resume
fi
"$python" -m runtime train --config "$config" --data "$work/meshes" --out "$work/run" \
  --minutes "$minutes" --device "${DEVICE:-auto}" "$@"
split -b 15m "$work/run/model.safetensors" "$out/new."
rm -f "$out"/weights.??
for part in "$out"/new.??; do
  mv "$part" "$out/weights.${part##*.}"
done
[ ! -f "$work/run/metrics.jsonl" ] || cp "$work/run/metrics.jsonl" "$out/"
