version 1.0
# The same batches as a WDL workflow (dxCompiler on the Research Analysis Platform, miniwdl or Cromwell elsewhere).
# One task per list of zips; each writes a run folder that `ukb-infer merge` joins. See docs/hpc.md.

workflow ukb_infer {
    input {
        Array[Array[File]] batches
        File modules_tar
        String docker = "ukb-infer:latest"
    }
    scatter (scans in batches) {
        call predict { input: scans = scans, modules_tar = modules_tar, docker = docker }
    }
    output {
        Array[File] estimates = predict.estimates
        Array[File] runs = predict.run
    }
}

task predict {
    input {
        Array[File] scans
        File modules_tar
        String docker
        Int cores = 4
        Int memory_gb = 8
    }
    command <<<
        set -eu
        mkdir modules
        tar --extract --no-same-owner --file ~{modules_tar} --directory modules
        export UKB_INFER_MODULES=$PWD/modules
        code=0
        ukb-infer predict ~{write_lines(scans)} --out run --device auto --workers ~{cores} || code=$?
        # 3: some scans failed, each with its reason in scans.csv. Any other code fails the task, which may be retried.
        [ "$code" -eq 0 ] || [ "$code" -eq 3 ]
        tar --create --gzip --file run.tar.gz run
    >>>
    output {
        File estimates = "run/estimates.csv"
        File scans_table = "run/scans.csv"
        File run = "run.tar.gz"
    }
    runtime {
        docker: docker
        cpu: cores
        memory: "~{memory_gb} GB"
        maxRetries: 2
    }
}
