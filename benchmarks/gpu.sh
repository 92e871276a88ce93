#!/usr/bin/env bash
# Everything of the package's speed that needs CUDA, in one command, resumable at any point:
#
#     bash benchmarks/gpu.sh OUT [OPTION...]
#
# OUT: the folder for the JSON files (and runs). What is in it already is not measured again, so the same command goes on
# after it was stopped or killed; it is to be repeated until it says that all is measured. OPTIONs are those of
# `python -m benchmarks.everything --help`; --data DATA names CIFAR-100 (a folder of parquet files, for example), without
# which the whole pipeline is left out. LIMIT: seconds that this call may take (540).
set -euo pipefail
cd "$(dirname "$0")/.."
: "${1:?usage: bash benchmarks/gpu.sh OUT [OPTION...]}"
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
export PYTHONPATH=src${PYTHONPATH:+:$PYTHONPATH}
limit=${LIMIT:-540}
# A machine without a network has what was brought: wheels unpacked into a folder that PYTHONPATH names will do.
missing=$("$python" -c 'from importlib.util import find_spec
names = "torch torchvision timm numpy PIL pyarrow sklearn scipy safetensors jaxtyping jsonargparse yaml jinja2 rich filelock huggingface_hub"
print(*(name for name in names.split() if find_spec(name) is None))')
if [ -n "$missing" ]; then
    echo "these modules are missing for $python: $missing. Install them, or name their folder in PYTHONPATH"
    exit 1
fi
if ! timeout -k 5 "$limit" "$python" -m benchmarks.everything "$@" --limit "$limit"; then
    echo "not finished; the same command goes on with it, unless a message above names an error"
    exit 1
fi
echo "all is measured; tables: python -m benchmarks.tables $1/*.json"
