# Sourced by the scripts in this folder. $PYTHON, else the project's environment, else python.
python_of_project() {
    if [ -n "${PYTHON:-}" ]; then
        echo "$PYTHON"
    elif [ -x "$tools/../.venv/bin/python" ]; then
        echo "$tools/../.venv/bin/python"
    else
        echo python
    fi
}

# launch N PROGRAM [ARGUMENTS]: N processes of it under torchrun.
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
        # A free port of its own, so that two runs may share a machine.
        rendezvous=(--standalone)
    else
        rendezvous=(
            --nnodes "$NNODES" --node_rank "${NODE_RANK:?}"
            --master_addr "${MASTER_ADDR:?}" --master_port "${MASTER_PORT:-29500}"
        )
    fi
    # Threads of the processes together: the cores of the machine, unless told otherwise.
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(( $(nproc) > processes ? $(nproc) / processes : 1 ))}
    exec "$(python_of_project)" -m torch.distributed.run \
        "${rendezvous[@]}" --nproc_per_node "$processes" "$@"
}
