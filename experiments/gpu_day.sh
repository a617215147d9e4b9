#!/usr/bin/env bash
# A day's work for one GPU in half an hour: what to measure there, in order of worth, each part on its own.
#
#   experiments/gpu_day.sh [--rehearsal] --records=NW_UCLA_RECORDS --out=DIR [PART ...]
#
# Parts, in this order unless named: check nw_ucla train infer streams preparation. Each writes OUT/PART.log, and figures
# as JSON beside it; a part that fails does not stop the others, and the exit status tells whether one did.
#
#   check        device, versions; our models on this device against the committed references
#   nw_ucla      four streams, 65 epochs, seeds SEEDS (default "0 1 2"), JOBS runs at a time (default 4). Runs live in
#                RUNS (default OUT/runs), resume there, and are stopped and saved after LIMIT seconds (default 540);
#                OUT/nw_ucla.tgz has their logs and scores
#   train        training steps of CTR-GCN and of MMCL, PyTorch eager and compiled beside ours
#   infer        the same for inference
#   streams      several streams in one program, or one after another
#   preparation  a question-answering model of BLIP's size and a detector of YOLO's
#
# It needs the package with its extra `torch`; `preparation` needs the extras `text` and `yolo`. PYTHON names the
# interpreter. --rehearsal runs everything on tiny sizes, on whatever device there is, so that what fails there has failed
# here first.
set -uo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3} SEEDS=${SEEDS:-0 1 2} JOBS=${JOBS:-4} LIMIT=${LIMIT:-540}
rehearsal="" records="" out="" parts=()
for argument in "$@"; do
  case $argument in
    --rehearsal) rehearsal=1 ;;
    --records=*) records=${argument#*=} ;;
    --out=*) out=${argument#*=} ;;
    check | nw_ucla | train | infer | streams | preparation) parts+=("$argument") ;;
    *) echo "error: unknown argument $argument; the head of $0 says what there is" >&2; exit 2 ;;
  esac
done
[ -n "$out" ] || { echo "error: --out=DIR is missing" >&2; exit 2; }
[ ${#parts[@]} -gt 0 ] || parts=(check nw_ucla train infer streams preparation)
mkdir -p "$out"
export PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false
benchmark=("$PYTHON" -m experiments.benchmark)
tiny=()
[ -z "$rehearsal" ] || tiny=(--base-channels=4 --rounds=1)

check() {
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv || [ -n "$rehearsal" ] || return 1
  "$PYTHON" -c 'import jax, flax, optax, torch, numpy
print({m.__name__: m.__version__ for m in (jax, flax, optax, torch, numpy)}, jax.devices())' || return 1
}

# One run, in the background of its queue: the stream and the seed are the argument, as joint:0.
nw_ucla_run() {
  local stream=${1%:*} seed=${1#*:}
  timeout --signal=TERM --kill-after=60 "$3" "$PYTHON" -m mmcl_jax.main --config="configs/nw_ucla.py:$stream" \
    --workdir="$2/seed$seed/$stream" --compilation_cache="$2/compiled" "${@:4}" --config.seed="$seed" \
    > "$2/seed$seed-$stream.log" 2>&1
  echo "$1: status $?, $(tail -n 1 "$2/seed$seed/$stream/metrics.csv" 2>/dev/null | cut -c 1-160)"
}

nw_ucla() {
  [ -n "$records" ] || { echo "error: nw_ucla needs --records=DIR"; return 2; }
  local runs=${RUNS:-$out/runs} began=$SECONDS deadline=$(($(date +%s) + LIMIT)) seed stream
  # 318 steps an epoch: six dispatches of 53, and one word to the log.
  local keys=(--config.data.records="$records" --config.data.device_resident=True --config.steps_per_dispatch=53
    --config.log_every_steps=318)
  [ -z "$rehearsal" ] || keys=(--config.data.records="$records" --config.data.device_resident=True
    --config.model.base_channels=4 --config.num_epochs=1 --config.drop_epochs='(1,)' --config.data.repeats=1)
  mkdir -p "$runs"
  export PYTHON
  export -f nw_ucla_run
  for seed in $SEEDS; do for stream in joint bone joint_motion bone_motion; do echo "$stream:$seed"; done; done |
    xargs -P "$JOBS" -I{} bash -c 'left=$(($1 - $(date +%s))); [ "$left" -lt 20 ] || nw_ucla_run {} "$2" "$left" "${@:3}"' \
      - "$deadline" "$runs" "${keys[@]}"
  for seed in $SEEDS; do
    [ "$(cat "$runs/seed$seed"/*/scores_test.npz 2>/dev/null | wc -c)" -gt 0 ] || continue
    "$PYTHON" -m experiments.summarise "$runs/seed$seed"/*/
  done
  tar -C "$runs" --exclude=checkpoints --exclude=compiled --exclude='events.*' -czf "$out/nw_ucla.tgz" .
  echo "nw_ucla: $((SECONDS - began)) s"
}

train() {
  local failed=0
  if [ -n "$rehearsal" ]; then
    "${benchmark[@]}" train --json "$out/train.json" "${tiny[@]}" --cases ctrgcn mmcl --batch 2 --steps 2 --clips 4 \
      --image-size 75 --turn-seconds 0.1 --no-compile
    return
  fi
  "${benchmark[@]}" train --json "$out/train_ctrgcn.json" --cases ctrgcn || failed=1
  "${benchmark[@]}" train --json "$out/train_mmcl.json" --cases mmcl --no-eager || failed=1
  "${benchmark[@]}" train --json "$out/train_ctrgcn_float32.json" --cases ctrgcn --dtype float32 --no-compile || failed=1
  return $failed
}

infer() {
  local options=(--rounds=5)
  [ -z "$rehearsal" ] || options=("${tiny[@]}" --no-compile)
  "${benchmark[@]}" infer --json "$out/infer.json" "${options[@]}"
}

streams() {
  local options=(--rounds=3)
  [ -z "$rehearsal" ] || options=("${tiny[@]}" --streams=2 --batch=2 --turn-seconds=0.1)
  "${benchmark[@]}" streams --json "$out/streams.json" "${options[@]}"
}

status=0
for part in "${parts[@]}"; do
  echo "== $part, $SECONDS s"
  "$part" 2>&1 | tee "$out/$part.log"
  [ "${PIPESTATUS[0]}" -eq 0 ] || { echo "FAILED: $part" | tee -a "$out/$part.log"; status=1; }
done
echo "== all, $SECONDS s, status $status"
exit $status
