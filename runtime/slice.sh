#!/bin/sh
# A slice of a training on a machine that is there for minutes only:
#
#   sh runtime/slice.sh CONFIG MESHES.zip OUT MINUTES
#
# MESHES.zip is of `python -m runtime pack`, or a dataset on disk as a zip. OUT gets the weights in
# parts of 15 MiB, which the next slice goes on from, and small.tar, the small files beside them.
# What stays behind is the optimisers' state, which warms up again. Models that cannot go on from
# weights (Slice3D, omages) go on from the whole checkpoint, which is larger. Wheels in build/wheels,
# for what the machine's Python lacks, are installed beside it. PYTHON names another Python, DEVICE
# another device.
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
  tar -xf "$out/small.tar" -C "$work/run"
  cat "$out"/weights.?? >"$work/run/$(cat "$out/weights.path")"
  set -- --resume
fi
code=0 # a training that fails leaves what it has learned so far
"$python" -m runtime train --config "$config" --data "$work/meshes" --out "$work/run" \
  --minutes "$minutes" --device "${DEVICE:-auto}" "$@" || code=$?
# X-Ray at paper scale leaves its weights in folders, of which the newest is enough.
weights=$(cd "$work/run" && ls -t model.safetensors checkpoint-*/*/*.safetensors 2>/dev/null | head -n 1)
weights=${weights:-checkpoint.pt}
[ -f "$work/run/$weights" ] || exit "$code"
split -b 15m "$work/run/$weights" "$out/new."
for folder in "$work"/run/checkpoint-*; do
  [ "${folder##*/}" = "${weights%%/*}" ] || rm -rf "$folder"
done
tar -cf "$out/small.tar" --exclude='*.pt' --exclude='*.ckpt' --exclude='*.safetensors' \
  --exclude=tensorboard \
  -C "$work/run" .
rm -f "$out"/weights.??
for part in "$out"/new.??; do
  mv "$part" "$out/weights.${part##*.}"
done
echo "$weights" >"$out/weights.path"
exit "$code"
