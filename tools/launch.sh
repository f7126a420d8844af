# Sourced by the scripts in this folder.

# Print $PYTHON, or the Python of the project's environment, or python.
python_of_project() {
    if [ -n "${PYTHON:-}" ]; then
        echo "$PYTHON"
    elif [ -x "$tools/../.venv/bin/python" ]; then
        echo "$tools/../.venv/bin/python"
    else
        echo python
    fi
}

# launch N PROGRAM [ARGUMENTS]: run N processes of a program with torchrun.
launch() {
    local processes=$1 rendezvous
    shift
    case $processes in
        '' | *[!0-9]* | 0)
            echo "number of processes must be a whole number above 0, got '$processes'" >&2
            exit 2
            ;;
    esac
    if [ "${NNODES:-1}" = 1 ]; then
        # Use a free port, so that two runs can share a machine.
        rendezvous=(--standalone)
    else
        rendezvous=(
            --nnodes "$NNODES" --node_rank "${NODE_RANK:?}"
            --master_addr "${MASTER_ADDR:?}" --master_port "${MASTER_PORT:-29500}"
        )
    fi
    # By default, divide the cores of the machine among the processes.
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(( $(nproc) > processes ? $(nproc) / processes : 1 ))}
    exec "$(python_of_project)" -m torch.distributed.run \
        "${rendezvous[@]}" --nproc_per_node "$processes" "$@"
}
