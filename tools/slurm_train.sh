#!/usr/bin/env bash
# Train with Slurm:
#   [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] \
#       tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of pcm train]
# GPUS is the number of processes; GPUS_PER_NODE=0 trains on CPUs.
set -eu
if [ $# -lt 3 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG [options of pcm train]" >&2
    exit 2
fi
tools=$(unset CDPATH && cd -- "$(dirname -- "$0")" && pwd)
partition=$1
job=$2
config=$3
shift 3
processes=${GPUS:-8}
per_node=${GPUS_PER_NODE:-$(( processes < 8 ? processes : 8 ))}
resources=(--ntasks="$processes" --cpus-per-task="${CPUS_PER_TASK:-5}")
if [ "$per_node" -gt 0 ]; then
    resources+=(--gres="gpu:$per_node" --ntasks-per-node="$per_node")
fi
source "$tools/launch.sh"
# shellcheck disable=SC2086  # SRUN_ARGS holds several arguments
exec srun --partition="$partition" --job-name="$job" "${resources[@]}" --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} "$(python_of_project)" "$tools/train.py" "$config" --launcher slurm "$@"
