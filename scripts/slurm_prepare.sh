#!/usr/bin/env bash
# Prepare a patch set on a Slurm cluster, by an array of jobs that need no scheduler of their own.
#
#     CONFIG=volprep.yaml JOBS=20 bash scripts/slurm_prepare.sh
#
# Every node must see the data, the output folder and the environment that volprep is installed in
# under the same paths. Jobs that are lost, or given the same units twice, do no harm: what is done
# is recorded, and the last command does what is missing.
#
# The other way is Dask, which needs no script: in the YAML
#
#     compute:
#       executor: dask
#       cluster: {kind: slurm, jobs: 20, cores: 8, memory: 32GB, queue: normal, walltime: "04:00:00"}
#
# and `volprep prepare volprep.yaml` on the login node, or in a job of its own.
set -euo pipefail

CONFIG=${CONFIG:?give CONFIG=volprep.yaml}
JOBS=${JOBS:-10}
SBATCH=${SBATCH:-sbatch --cpus-per-task=8 --mem=32G --time=04:00:00}
VOLPREP=${VOLPREP:-volprep}

# A stage can be counted when the one before it is done: volumes first, where they are resampled,
# then skeletons, where they are asked for, then the patches of both splits.
before=""
while read -r stage units left < <($VOLPREP units "$CONFIG" --count) && [ "$left" -gt 0 ]; do
    [ "$stage $left" != "$before" ] ||
        { echo "$stage: the jobs made none of the $left units left; look at their logs" >&2; exit 1; }
    before="$stage $left"
    each=$(((units + JOBS - 1) / JOBS))
    last=$(((units + each - 1) / each - 1))
    # --wait returns when the array has ended. A job that failed shows as units that are left.
    $SBATCH --wait --job-name=volprep --array=0-$last --wrap \
        "$VOLPREP work '$CONFIG' --units \$((SLURM_ARRAY_TASK_ID * $each)):\$(((SLURM_ARRAY_TASK_ID + 1) * $each))" || true
done
$VOLPREP prepare "$CONFIG"
