#!/usr/bin/env bash
# Everything of the package's speed that needs CUDA, in one command, resumable at any point:
#
#     bash benchmarks/gpu.sh OUT [DATA]
#
# OUT: the folder for the JSON files (and runs); what is in it already is not measured again, so the same command goes on
# after it was stopped or killed. DATA: CIFAR-100 as `sskd distill --data` takes it, such as a folder of parquet files; without
# it the whole pipeline is left out. LIMIT: seconds that this call may take (540); what does not fit waits for the next.
# PARTS: those to measure, if not all: "step roofline whole pipeline growth". DEVICE=cpu TINY=1 rehearses, small, on a CPU.
set -euof pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: bash benchmarks/gpu.sh OUT [DATA]}; data=${2:-}
device=${DEVICE:-cuda}; limit=${LIMIT:-540}; tiny=${TINY:-}
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
export PYTHONPATH=src${PYTHONPATH:+:$PYTHONPATH}
mkdir -p "$out"
left=0

wanted() { [[ " ${PARTS:-step roofline whole pipeline growth} " == *" $1 "* ]]; }

# part NAME LEAST ARGUMENTS...: run a benchmark into OUT/NAME.json, if LEAST seconds are left, until the call's limit
part() {
    local name=$1 least=$2 remaining=$((limit - SECONDS)); shift 2
    if [ -e "$out/$name.done" ] || ! wanted "$name"; then return 0; fi
    if [ "$remaining" -lt "$least" ]; then echo "$name: left for the next call"; left=1; return 0; fi
    if timeout -k 10 "$remaining" "$python" -m "$@" --device "$device" --out "$out/$name.json"; then
        touch "$out/$name.done"
    else
        echo "$name: not finished ($?); the same command goes on with it"; left=1
    fi
}

if [ -n "$tiny" ]; then
    pair="cifar_resnet8:cifar_resnet8"
    step="--pairs [\"$pair\"] --batch_size 4 --rounds 1 --steps 1 --images 16 --classes 4 --peer false"
    fed="--workers 0"; feeds="--batch_size 4 --untimed 0 --timed 1 --images 16 --width 48 --height 40 --size 32 --workers [0]"
    growth="--student cifar_resnet8 --teacher cifar_resnet8 --rounds 1 --steps 1 --batches [4] --views [2] --classes [4]"
    growth="$growth --images [16] --widths [8,16]"
    roof="--pairs [\"$pair\"] --batch_size 4 --rounds 1 --side 64 --copied 4096"
    whole="--teacher cifar_resnet8 --student cifar_resnet8 --teacher_epochs 1 --head_epochs 1 --epochs 1 --batch_size 32"
else
    step="--rounds 7 --steps 20 --untimed 5 --compiled true"
    fed="--workers 4"; feeds="--timed 40 --untimed 10 --workers [0,4,8,16] --compiled true"
    growth="--rounds 3 --steps 10"
    roof="--side 8192 --copied 268435456 --rounds 20"
    whole=""
fi

# The order is that of importance: what is cut off by a limit is what can best be missed.
part step 60 benchmarks.step $step $fed
part roofline 30 benchmarks.roofline $roof
if [ -n "$data" ] && wanted whole && [ ! -e "$out/whole.done" ]; then
    remaining=$((limit - SECONDS))
    if [ "$remaining" -ge 60 ]; then
        "$python" -m benchmarks.whole $whole --data "$data" --runs "$out/runs" --device "$device" \
            --limit $((remaining - 20)) --out "$out/whole.json"
    fi
    if [ -e "$out/runs/student/result.json" ]; then touch "$out/whole.done"; else echo "whole: not finished"; left=1; fi
fi
part pipeline 30 benchmarks.pipeline $feeds
part growth 30 benchmarks.growth $growth
[ "$left" = 1 ] || echo "all is measured; tables: python -m benchmarks.tables $out/*.json"
exit "$left"
