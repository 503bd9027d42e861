#!/usr/bin/env bash
# The same run with several seeds, a job and a GPU for each:
#
#     sbatch --array=0-4 examples/cluster/slurm_seeds.sh recipe.yaml runs/seeds [key=value ...]
#     equipoise report runs/seeds/*
#
#SBATCH --job-name=equipoise-seeds
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A-%a.log
#SBATCH --signal=TERM@180
set -euo pipefail

recipe=${1:?sbatch --array=0-4 slurm_seeds.sh RECIPE OUT [key=value ...]}
seed=${SLURM_ARRAY_TASK_ID:?give sbatch an --array}
out=${2:?sbatch --array=0-4 slurm_seeds.sh RECIPE OUT [key=value ...]}/$seed
shift 2
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

reached() { # which checkpoints there are
    find "$out/checkpoints" -maxdepth 1 -name 'checkpoint-*' 2>/dev/null | sort || true
}
before=$(reached)
status=0
srun equipoise train "$recipe" "$@" --seed "$seed" --out "$out" --resume || status=$?

if [[ -f $out/done.json ]]; then
    srun equipoise evaluate "$out"
elif [[ $(reached) != "$before" ]]; then
    echo "not finished, but further than before: queued again"
    scontrol requeue "$SLURM_JOB_ID"
else
    echo "no checkpoint came of it: not queued again (status $status)"
    exit 1
fi
