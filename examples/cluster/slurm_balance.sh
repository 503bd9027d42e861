#!/usr/bin/env bash
# CoTBal on one machine with several GPUs, a run on each:
#
#     sbatch examples/cluster/slurm_balance.sh recipe.yaml runs/balance [options of equipoise balance ...]
#
# For several machines, start a Ray cluster in the job and give `--ray auto` instead of `--slots` (docs/cluster.md).
#SBATCH --job-name=equipoise-balance
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#SBATCH --signal=TERM@180
set -euo pipefail

recipe=${1:?sbatch slurm_balance.sh RECIPE OUT [options ...]}
out=${2:?sbatch slurm_balance.sh RECIPE OUT [options ...]}
shift 2
slots=${SLOTS:-${SLURM_GPUS_ON_NODE:-1}}
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}

reached() { # which runs are done, and which checkpoints the others have
    find "$out/nodes" \( -name done.json -o -name 'checkpoint-*' -o -name 'scores-*.json' \) 2>/dev/null | sort || true
}
before=$(reached)
status=0
srun equipoise balance "$recipe" "$@" --out "$out" --slots "$slots" || status=$?

if [[ $status == 0 && -f $out/results.json ]]; then
    echo "finished: $out"
elif [[ $(reached) != "$before" ]]; then
    echo "not finished, but further than before: queued again"
    scontrol requeue "$SLURM_JOB_ID"
else
    echo "nothing came of it: not queued again (status $status)"
    exit 1
fi
