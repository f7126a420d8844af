#!/usr/bin/env bash
# Train with N processes on this machine, one per GPU, or on the CPU if there is no GPU:
#   tools/dist_train.sh CONFIG N [options of pcm train]
# For several machines, set NNODES, NODE_RANK and MASTER_ADDR (and MASTER_PORT) on each.
set -eu
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG N [options of pcm train]" >&2
    exit 2
fi
tools=$(unset CDPATH && cd -- "$(dirname -- "$0")" && pwd)
config=$1
processes=$2
shift 2
source "$tools/launch.sh"
launch "$processes" "$tools/train.py" "$config" --launcher pytorch "$@"
