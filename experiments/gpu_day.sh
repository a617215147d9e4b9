#!/usr/bin/env bash
# What to measure in half an hour of a GPU: parts in order of worth, each with a time limit of its own.
#
#   experiments/gpu_day.sh [--rehearsal] --out=DIR [--records=DIR] [--golden=DIR] [--total=SECONDS]
#                        [PART[:SECONDS] ...]
#
# Parts, in this order unless named, with their limits in seconds; all of them together end after --total, 1800. Most end
# before their limit, so that the last ones get what is left.
#
#   check:200        device and versions; our models on this device against the references in --golden (default
#                    tests/golden)
#   train:430        training steps of CTR-GCN (all clips of two people, then 80 % of one), and of MMCL in batches of
#                    100, PyTorch eager beside ours, bfloat16
#   infer:320        the skeleton model: float32, TF32 and bfloat16, PyTorch eager beside ours
#   nw_ucla:690      NW-UCLA's four streams, 65 epochs, seeds SEEDS (default "0 1 2"), JOBS runs at a time (default 4).
#                    Runs live in RUNS (default DIR/runs); at the limit they are saved and stopped, and the same command
#                    resumes them. Four runs at a time take about 11 minutes of an H100
#   preparation:100  a question-answering model of BLIP's size, and YOLO11n: pictures per second
#   streams:200      four streams in one program, or one after another
#   compiled:300     CTR-GCN's training step, torch.compile beside ours
#
# A part writes DIR/PART.log, and its figures as JSON. The JSON and the logs are complete up to the moment at which a
# limit is reached. A part that fails does not stop the others; the exit status is 1 if one did. After each run of nw_ucla
# DIR/nw_ucla.tgz is written again (logs, metrics, scores of all runs so far), and DIR/seedN-STREAM.tgz: of a finished run
# the newest checkpoint without the optimizer's state (6 MB), of a stopped one the newest checkpoint (12 MB). To resume on
# another machine, unpack all of them in RUNS there.
#
# What to carry to a machine without internet: this checkout; the records (14 MB); and the packages that it lacks, from
#
#   python -m pip download --only-binary=:all: --python-version 3.12 --dest wheels -r requirements.txt
#   python -m pip install --no-index --find-links wheels --target site -r requirements.txt      (there)
#   export PYTHONPATH=$PWD/site
#
# leaving out of the list what is there already (jax with its CUDA plugin, torch). PYTHON names the interpreter.
# It needs the package with its extra `torch`; `preparation` needs the extras `text` and `yolo`, and says so where they are
# missing.
#
# --rehearsal runs every part on tiny models, on any device, in a few minutes, so that what can fail on a CPU fails
# there. Without --records it writes synthetic ones. (MAIN and BENCHMARK name the modules of the two commands; the test
# of the rehearsal has some with shallower models.)
set -uo pipefail

declare -A limits=([check]=200 [train]=430 [infer]=320 [nw_ucla]=690 [preparation]=100 [streams]=200 [compiled]=300)
ORDER=(check train infer nw_ucla preparation streams compiled)
PYTHON=${PYTHON:-python3} MAIN=${MAIN:-mmcl_jax.main} BENCHMARK=${BENCHMARK:-experiments.benchmark}
SEEDS=${SEEDS:-0 1 2} JOBS=${JOBS:-4}
rehearsal="" records="" golden="" out="" total=1800 parts=()
for argument in "$@"; do
  case $argument in
    --rehearsal) rehearsal=1 ;;
    --records=*) records=$(realpath -m "${argument#*=}") ;;
    --golden=*) golden=$(realpath -m "${argument#*=}") ;;
    --out=*) out=$(realpath -m "${argument#*=}") ;;
    --total=*) total=${argument#*=} ;;
    --help) sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "$0"; exit ;;
    *)
      part=${argument%%:*}
      if [ -z "${limits[$part]:-}" ]; then
        echo "error: unknown argument $argument; see $0 --help" >&2
        exit 2
      fi
      [ "$part" = "$argument" ] || limits[$part]=${argument#*:}
      parts+=("$part")
      ;;
  esac
done
[ -n "$out" ] || { echo "error: --out=DIR is missing; see $0 --help" >&2; exit 2; }
[ ${#parts[@]} -gt 0 ] || parts=("${ORDER[@]}")
mkdir -p "$out" || exit 2
runs=$(realpath -m "${RUNS:-$out/runs}")
cd "$(dirname "$0")/.." || exit 2
golden=${golden:-$PWD/tests/golden}
export PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false

# Runs a command until the part's deadline at the latest. `timeout` passes the signal on to what the command started.
limited() {
  local left=$((deadline - $(date +%s)))
  [ "$left" -ge 5 ] || { echo "not run, no time left: $*"; return 1; }
  timeout --signal=TERM --kill-after=30 "$left" "$@"
}

benchmark() { # KIND NAME OPTION ...: figures go to OUT/NAME.json
  limited "$PYTHON" -m "$BENCHMARK" "$1" --json "$out/$2.json" "${@:3}"
}

check() {
  if ! nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv; then
    [ -n "$rehearsal" ] || return 1
  fi
  limited "$PYTHON" -c 'import flax, jax, numpy, optax, torch
print({m.__name__: m.__version__ for m in (jax, flax, optax, torch, numpy)}, jax.devices())' || return 1
  if [ ! -d "$golden" ]; then
    echo "not run: parity; $golden is no folder of reference outputs, name one with --golden=DIR"
    return
  fi
  local folder=$golden
  if [ -n "$rehearsal" ]; then # the tests compare the models
    folder=$out/golden
    mkdir -p "$folder" && cp "$golden"/contrastive.json "$folder" || return 1
  fi
  limited "$PYTHON" -m experiments.parity "$folder"
}

train() {
  local failed=0 short=(--no-compile --rounds 3 --turn-seconds 0.7)
  if [ -n "$rehearsal" ]; then
    benchmark train train --batch 2 --steps 2 --clips 4 --base-channels 4 --image-size 75 --rounds 1 \
      --turn-seconds 0.1 --cases ctrgcn mmcl --one-person 0.5 --no-eager --no-compile
    return
  fi
  benchmark train train_ctrgcn "${short[@]}" --cases ctrgcn || failed=1
  benchmark train train_one_person "${short[@]}" --cases ctrgcn --one-person 0.8 --no-eager || failed=1
  # 200 clips do not fit into 80 GB beside PyTorch's.
  benchmark train train_mmcl "${short[@]}" --cases mmcl --no-eager --batch 100 --steps 5 --clips 400 || failed=1
  return $failed
}

infer() {
  local options=(--no-compile --rounds 3)
  [ -z "$rehearsal" ] || options=(--no-compile --rounds 1 --turn-seconds 0.1 --base-channels 4 --cases one)
  benchmark infer infer "${options[@]}"
}

compiled() {
  if [ -n "$rehearsal" ]; then
    echo "not rehearsed: torch.compile takes minutes on a CPU; everything else is what 'train' does"
    return
  fi
  # Where torch.compile is not done in time our own figure remains.
  benchmark train train_compiled --cases ctrgcn --no-eager --no-released --rounds 3 --turn-seconds 0.7 \
    --ready-within $((deadline - $(date +%s) - 30))
}

streams() {
  local options=(--rounds 3 --turn-seconds 1)
  [ -z "$rehearsal" ] || options=(--base-channels 4 --rounds 1 --streams 2 --batch 2 --turn-seconds 0.1)
  benchmark streams streams "${options[@]}"
}

preparation() {
  local options=(--rounds 3 --turn-seconds 1)
  [ -z "$rehearsal" ] || options=(--rounds 1 --turn-seconds 0.1 --pictures 2 --layers 1 --width 64 --image-size 32)
  benchmark preparation preparation "${options[@]}"
}

# One run: `nw_ucla_run STREAM:SEED DEADLINE RUNS OUT KEY ...`, by xargs in a shell of its own.
nw_ucla_run() {
  local stream=${1%:*} seed=${1#*:} deadline=$2 runs=$3 out=$4
  local left=$((deadline - $(date +%s))) workdir=$runs/seed$seed/$stream
  [ "$left" -ge 20 ] || return 0
  timeout --signal=TERM --kill-after=60 "$left" "$PYTHON" -m "$MAIN" --config="configs/nw_ucla.py:$stream" \
    --workdir="$workdir" --compilation_cache="$runs/compiled" "${@:5}" --config.seed="$seed" \
    > "$runs/seed$seed-$stream.log" 2>&1
  local status=$?
  echo "$1: status $status, $(tail -n 1 "$workdir/metrics.csv" 2>/dev/null | cut -c 1-160)"
  # What is worth keeping of it, whole at any moment; runs that end at the same time wait for each other.
  local newest training=() archive=seed$seed-$stream.tgz
  newest=$(find "$workdir/checkpoints" -mindepth 1 -maxdepth 1 -regex '.*/[0-9]+' -printf '%f\n' 2>/dev/null | sort -n | tail -n 1)
  [ ! -e "$workdir/scores_test.npz" ] || training=(--exclude="seed$seed/$stream/checkpoints/$newest/training")
  (
    flock 9
    if [ -n "$newest" ]; then
      tar -C "$runs" "${training[@]}" -czf "$out/.$archive" "seed$seed/$stream/checkpoints/$newest" &&
        mv "$out/.$archive" "$out/$archive"
    fi
    tar -C "$runs" --warning=no-file-changed --exclude=checkpoints --exclude=compiled --exclude='events.*' \
      --exclude=.lock -czf "$out/.nw_ucla.tgz" .
    mv "$out/.nw_ucla.tgz" "$out/nw_ucla.tgz"
  ) 9> "$runs/.lock"
  return $((status == 124 ? 0 : status)) # 124: the time limit
}

nw_ucla() {
  local seed stream failed=0 keys=(--config.data.device_resident=True)
  mkdir -p "$runs" || return 1
  if [ -n "$rehearsal" ]; then
    keys+=(--config.model.base_channels=4 --config.num_epochs=1 --config.warmup_epochs=0 --config.drop_epochs='(1,)'
      --config.data.repeats=1 --config.data.window=8)
    if [ -z "$records" ]; then
      records=$out/records
      [ -e "$records/info.json" ] || synthetic_records "$records" || return 1
    fi
  else
    # 318 steps an epoch: six dispatches of 53, and one line in the log.
    keys+=(--config.steps_per_dispatch=53 --config.log_every_steps=318)
  fi
  [ -n "$records" ] || { echo "error: nw_ucla needs --records=DIR, made by data_prep.nw_ucla"; return 2; }
  keys+=(--config.data.records="$records")
  export PYTHON MAIN
  export -f nw_ucla_run
  for seed in $SEEDS; do for stream in joint bone joint_motion bone_motion; do echo "$stream:$seed"; done; done |
    xargs -P "$JOBS" -I{} bash -c 'nw_ucla_run {} "$@"' - "$deadline" "$runs" "$out" "${keys[@]}" || failed=1
  deadline=$((deadline + 60)) # the table takes seconds, and is what all this was for
  for seed in $SEEDS; do
    if [ "$(ls "$runs/seed$seed"/*/scores_test.npz 2>/dev/null | wc -l)" -eq 4 ]; then
      limited "$PYTHON" -m experiments.streams --config=configs/nw_ucla.py:joint --workdir="$runs/seed$seed" \
        "${keys[@]}" --config.seed="$seed" || failed=1
      cp "$runs/seed$seed/streams.md" "$out/streams-seed$seed.md"
    else
      echo "seed $seed: not finished; the same command resumes it"
    fi
  done
  return $failed
}

# Ten classes, two subjects, three cameras, with NW-UCLA's joints: 40 training clips and 20 test clips of random walks.
synthetic_records() {
  "$PYTHON" - "$1" << 'PROGRAM'
import pathlib
import sys

import numpy as np

from data_prep import nw_ucla
from mmcl_jax.data import records

rng = np.random.default_rng(0)
clips = [
    records.Clip(
        name=f"a{action:02d}_s{subject:02d}_e00_v{camera:02d}",
        label=label,
        subject=subject,
        camera=camera,
        setup=1,
        replication=0,
        skeleton=np.cumsum(rng.normal(0, 0.1, (30, 1, nw_ucla.NUM_JOINTS, 3)), axis=0).astype(np.float32),
    )
    for label, action in enumerate(nw_ucla.ACTIONS)
    for subject in (1, 2)
    for camera in (1, 2, 3)
]
records.write_records(pathlib.Path(sys.argv[1]), nw_ucla.dataset_info(None), clips, total=len(clips))
PROGRAM
}

if [ -n "$rehearsal" ]; then
  SEEDS=0
  JOBS=2
  total=7200
  for part in "${ORDER[@]}"; do limits[$part]=$total; done # of a busy machine
  # Programs that run once: compiled in a fraction of the time.
  export XLA_FLAGS="${XLA_FLAGS:-} --xla_backend_optimization_level=0"
fi

status=0
for part in "${parts[@]}"; do
  seconds=$((total - SECONDS < limits[$part] ? total - SECONDS : limits[$part]))
  echo "== $part, at $SECONDS s, at most $seconds s"
  deadline=$(($(date +%s) + seconds))
  "$part" 2>&1 | tee "$out/$part.log"
  if [ "${PIPESTATUS[0]}" -ne 0 ]; then
    echo "FAILED or stopped: $part" | tee -a "$out/$part.log"
    status=1
  fi
done
echo "== all, $SECONDS s, status $status"
exit $status
