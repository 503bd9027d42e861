#!/usr/bin/env bash
# Stands in for srun: starts the command once for each machine, passes SIGTERM on, waits for all.
while [[ $1 == --* ]]; do shift; done
pids=()
for ((node = 0; node < SLURM_NNODES; node++)); do
    SLURM_NODEID=$node SLURM_PROCID=$node "$@" &
    pids+=($!)
done
trap 'kill -TERM "${pids[@]}"' TERM
status=0
for pid in "${pids[@]}"; do
    code=0
    while kill -0 "$pid" 2>/dev/null; do wait "$pid" || code=$?; done
    ((code == 0)) || status=$code
done
exit "$status"
