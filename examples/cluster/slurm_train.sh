#!/usr/bin/env bash
# One run on several machines, a process for each of their GPUs:
#
#     sbatch examples/cluster/slurm_train.sh recipe.yaml runs/vqa [key=value ...]
#
# The folders must be the same on all machines. When its time is over, or a process is lost, the job queues itself again
# and goes on from the newest checkpoint; Slurm does the same where it takes the machines away, or one of them dies.
#SBATCH --job-name=equipoise
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --mem=0
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# Three minutes before the time is over, so that a checkpoint is written.
#SBATCH --signal=TERM@180
set -euo pipefail

recipe=${1:?sbatch slurm_train.sh RECIPE OUT [key=value ...]}
out=${2:?sbatch slurm_train.sh RECIPE OUT [key=value ...]}
shift 2

# Processes on each machine: one a GPU; PROCESSES says otherwise, for machines without.
processes=${PROCESSES:-${SLURM_GPUS_ON_NODE:-1}}
cores=${SLURM_CPUS_PER_TASK:-1}
export SRUN_CPUS_PER_TASK=$cores # srun does not take it from sbatch any more
export OMP_NUM_THREADS=$((cores / processes > 0 ? cores / processes : 1))
read -r head < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + SLURM_JOB_ID % 20000))

reached() { # which checkpoints there are
    find "$out/checkpoints" -maxdepth 1 -name 'checkpoint-*' 2>/dev/null | sort || true
}
before=$(reached)
status=0
srun --wait=60 torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node "$processes" --max-restarts 1 \
    --rdzv-backend c10d --rdzv-endpoint "$head:$port" --rdzv-id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
    -m equipoise train "$recipe" "$@" --out "$out" --resume || status=$?

if [[ -f $out/done.json ]]; then
    echo "finished: $out"
elif [[ $(reached) != "$before" ]]; then
    echo "not finished, but further than before: queued again"
    scontrol requeue "$SLURM_JOB_ID"
else
    echo "no checkpoint came of it: not queued again (status $status)"
    exit 1
fi
