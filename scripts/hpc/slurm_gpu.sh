#!/bin/bash
# Predict cached projections with one GPU. The job array makes them (COMMAND=project); this job needs no zips.
#
#   ukb-infer merge /scratch/projections/shard-* --out /scratch/projections/all
#   export PROJECTIONS=/scratch/projections/all OUT=/scratch/run UKB_INFER_MODULES=/apps/modules
#   sbatch scripts/hpc/slurm_gpu.sh [further options of predict]
#
# MODULES names one module; without it all in UKB_INFER_MODULES are used. See docs/hpc.md.
#SBATCH --job-name=ukb-infer-gpu
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=02:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=ukb-infer-gpu-%j.log
#SBATCH --signal=B:TERM@120
set -u

: "${PROJECTIONS:?set PROJECTIONS to the folder of projections}" "${OUT:?set OUT to the folder of the results}"
DEVICE=${DEVICE:-cuda}
OPTIONS=${OPTIONS:-}

# shellcheck disable=SC2086
ukb-infer predict "$PROJECTIONS" --out "$OUT" --device "$DEVICE" --workers "${SLURM_CPUS_PER_TASK:-4}" \
    ${MODULES:+--modules "$MODULES"} "$@" $OPTIONS &
work=$!
trap 'kill -TERM "$work" 2>/dev/null' TERM
wait "$work"; code=$?
while kill -0 "$work" 2>/dev/null; do wait "$work"; code=$?; done

case $code in
    0 | 3) exit 0 ;;
    1 | 2) exit "$code" ;;
    *)
        if [ "${SLURM_RESTART_COUNT:-0}" -lt "${MAX_RESTARTS:-20}" ]; then
            echo "exit code $code: requeued" >&2
            scontrol requeue "$SLURM_JOB_ID" && sleep 60
        fi
        exit "$code" ;;
esac
