#!/bin/bash
# Predict (or project) a biobank as a Slurm job array: every task processes one shard in its own folder.
#
#   export SHARDS=16 INPUT=/data/20201 OUT=/scratch/run UKB_INFER_MODULES=/apps/modules
#   sbatch --array=1-16 scripts/hpc/slurm_array.sh [further options of the command]
#   sbatch --array=3,7 scripts/hpc/slurm_array.sh     # some tasks again: keep SHARDS at 16
#   ukb-infer merge /scratch/run/shard-* --out /scratch/run/merged        # when all tasks have ended
#
# A task that is told to stop (time limit, preemption) or killed requeues itself and continues.
# See docs/hpc.md.
#SBATCH --job-name=ukb-infer
#SBATCH --cpus-per-task=4
#SBATCH --mem=6G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=ukb-infer-%A_%a.log
#SBATCH --signal=B:TERM@120
set -u

: "${SHARDS:?set SHARDS to the number of tasks of the whole array, e.g. 16 for sbatch --array=1-16}"
: "${INPUT:?set INPUT to the folder (or list) of scans}" "${OUT:?set OUT to the folder of the results}"
COMMAND=${COMMAND:-predict}            # or project, stitch
MODULES=${MODULES:-}                   # one module, by name or path; without it all in UKB_INFER_MODULES
OPTIONS=${OPTIONS:-}                   # further options without spaces, e.g. "--exclude w12345_20260101.csv"
MAX_RESTARTS=${MAX_RESTARTS:-20}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}

if [ "$COMMAND" = predict ]; then
    set -- --device cpu ${MODULES:+--modules "$MODULES"} "$@"
fi
shard=$(printf 'shard-%05d' "${SLURM_ARRAY_TASK_ID:?start it with sbatch --array}")
mkdir -p "$OUT"

# In the background, so that this shell can forward the scheduler's signal at once.
# shellcheck disable=SC2086
ukb-infer "$COMMAND" "$INPUT" --out "$OUT/$shard" --shard "slurm/$SHARDS" --workers "${SLURM_CPUS_PER_TASK:-1}" \
    "$@" $OPTIONS &
work=$!
trap 'kill -TERM "$work" 2>/dev/null' TERM
wait "$work"; code=$?
while kill -0 "$work" 2>/dev/null; do wait "$work"; code=$?; done

case $code in
    0 | 3) exit 0 ;;  # 3: some scans failed, each with its reason in scans.csv
    1 | 2) exit "$code" ;;  # the run cannot be done, or the command must be changed: see the log
    *)  # 75: asked to stop; 137 and similar: killed
        if [ "${SLURM_RESTART_COUNT:-0}" -lt "$MAX_RESTARTS" ]; then
            echo "exit code $code: requeued" >&2
            scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}" && sleep 60
        fi
        exit "$code" ;;
esac
