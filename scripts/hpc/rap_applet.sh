#!/bin/bash
# Predict scans in batches on the UK Biobank Research Analysis Platform, from its read-only mount of the project.
#
# As an applet, main() is the entry point; by hand or in a workstation job: bash rap_applet.sh. Every finished batch is
# uploaded with a completion marker; a restarted job skips marked batches. With MERGE=1 the job downloads the folders of
# all marked batches, joins them, and uploads the tables, also as Parquet for Spark. See docs/hpc.md.
#
#   MOUNT    folder of the zips in the mount, e.g. "/mnt/project/Bulk/Whole Body MRI/Dixon" (searched recursively)
#   LIST     file of keys (eid_20201_2_0, one a line), and ROOT a pattern of their paths, instead of MOUNT: see --root
#   DONE     folder of the results in the mount, with the markers of earlier jobs
#   TARGET   folder of the results in the project, to which UPLOAD copies files
#   BATCH    scans per batch
#   SHARD    "I/N" if several jobs share the batches, else 1/1
#   MODULES_TAR  tar file in the project with the folders of the modules, which is downloaded; else UKB_INFER_MODULES
#   PARQUET  empty: no tables as Parquet, which need the extra `parquet`
#   MERGE    1: join the batches instead
#   UPLOAD   command that is given a target folder and files; default: dx upload
#   DOWNLOAD command that is given a file or folder of the project and a local folder; default: dx download
set -euo pipefail
shopt -s nullglob

upload() {
    local folder=$1
    shift
    if [ -n "${UPLOAD:-}" ]; then "$UPLOAD" "$folder" "$@"; else dx upload --brief --parents --path "$folder/" "$@"; fi
}

download() {
    if [ -n "${DOWNLOAD:-}" ]; then
        "$DOWNLOAD" "$1" "$2"
    else
        dx download --recursive --overwrite --no-progress --output "$2/" "$1"
    fi
}

merge_batches() {
    local done_folder=$1 work=$2 name marker names=() code=0
    for marker in "$done_folder"/batch-*.done; do
        name=$(basename "$marker" .done)
        mkdir -p "$work/batches"
        download "$TARGET/$name" "$work/batches"
        names+=("$work/batches/$name")
    done
    if [ ${#names[@]} -eq 0 ]; then
        echo "no marked batches in $done_folder; predict them first" >&2
        return 2
    fi
    ukb-infer merge "${names[@]}" --out "$work/merged" || code=$?
    if [ "$code" -ne 0 ] && [ "$code" -ne 3 ]; then  # 3: some scans failed, as in any large cohort
        return "$code"
    fi
    upload "$TARGET/merged" "$work"/merged/journal.sqlite "$work"/merged/*.csv "$work"/merged/*.json "$work"/merged/*.parquet
}

main() {
    if [ -n "${MODULES_TAR:-}" ]; then
        UKB_INFER_MODULES=$(mktemp -d)
        export UKB_INFER_MODULES
        download "$MODULES_TAR" "$UKB_INFER_MODULES"
        tar --extract --no-same-owner --directory "$UKB_INFER_MODULES" --file "$UKB_INFER_MODULES/$(basename "$MODULES_TAR")"
    fi
    if [ "${MERGE:-}" = 1 ]; then
        : "${TARGET:?set TARGET to the folder of the results}"
        merge_batches "${DONE:-/mnt/project$TARGET}" "${WORK:-$(mktemp -d)}"
        return
    fi
    : "${MOUNT:=${ROOT:-}}" "${MOUNT:?set MOUNT to the folder of the zips, or LIST and ROOT}" "${TARGET:?set TARGET to the folder of the results}"
    local done_folder=${DONE:-/mnt/project$TARGET} batch=${BATCH:-500} shard=${SHARD:-1/1} work status=0
    work=${WORK:-$(mktemp -d)}
    if ! [[ $shard =~ ^([1-9][0-9]*)/([1-9][0-9]*)$ ]] || [ "${shard%/*}" -gt "${shard#*/}" ]; then
        echo "SHARD is '$shard', expected I/N with I from 1 to N, e.g. 3/10" >&2
        return 2
    fi
    local number=${shard%/*} count=${shard#*/}

    if [ -n "${LIST:-}" ]; then cat "$LIST"; else find "$MOUNT" -name '*.zip'; fi | LC_ALL=C sort > "$work/all.txt"
    rm -rf "$work/lists" && mkdir -p "$work/lists"
    split --lines="$batch" --numeric-suffixes=1 --suffix-length=5 --additional-suffix=.txt "$work/all.txt" "$work/lists/batch-"

    local position=0 list name code sum
    for list in "$work"/lists/batch-*.txt; do
        name=$(basename "$list" .txt)
        position=$((position + 1))
        if [ $(((position - 1) % count + 1)) -ne "$number" ]; then
            continue
        fi
        sum=$(sha256sum < "$list") && sum=${sum%% *}
        if [ -e "$done_folder/$name.done" ]; then
            # The list of this name has changed (another BATCH or new zips): some scans would never be processed.
            if grep --quiet '^list ' "$done_folder/$name.done" && ! grep --quiet "^list $sum$" "$done_folder/$name.done"
            then
                echo "$name: is marked as complete for other scans; use the BATCH of the first job, or another TARGET" >&2
                status=2
            fi
            continue
        fi
        code=0
        # shellcheck disable=SC2086
        ukb-infer predict "$list" --out "$work/$name" ${PARQUET---parquet} --device "${DEVICE:-auto}" ${MODULES:+--modules "$MODULES"} \
            ${ROOT:+--root "$ROOT"} ${OPTIONS:-} || code=$?
        if [ "$code" -ne 0 ] && [ "$code" -ne 3 ]; then
            echo "$name: exit code $code, not marked as complete; see the log, then start the job again" >&2
            status=$code
            continue
        fi
        # The journal is uploaded too, so that `ukb-infer merge` can join the batches; the marker comes last.
        upload "$TARGET/$name" "$work/$name"/journal.sqlite "$work/$name"/*.csv "$work/$name"/run.json "$work/$name"/*.parquet
        printf '%s\nlist %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$sum" > "$work/$name.done"
        upload "$TARGET" "$work/$name.done"
    done
    return "$status"
}

# An applet's runner calls main() itself.
if [ -z "${DX_JOB_ID:-}" ]; then main; fi
