#!/usr/bin/env bash
# Test with N processes on this machine, one per GPU, or on the CPU if there is no GPU:
#   tools/dist_test.sh CONFIG CHECKPOINT N [options of pcm test]
set -eu
if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT N [options of pcm test]" >&2
    exit 2
fi
tools=$(unset CDPATH && cd -- "$(dirname -- "$0")" && pwd)
config=$1
checkpoint=$2
processes=$3
shift 3
source "$tools/launch.sh"
launch "$processes" "$tools/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
