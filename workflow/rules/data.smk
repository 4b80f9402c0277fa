# Raw data → prepared files of a task. The test split goes into a file of its own.


rule prepare:
    output:
        train="data/{task}.train.safetensors",
        test="data/{task}.test.safetensors",
        summary="data/{task}.json",
    log:
        text="logs/prepare/{task}.log",
        digests="digests/prepare/{task}.sha256",
        report="logs/prepare/{task}.faults.csv",
    benchmark:
        "benchmarks/prepare/{task}.tsv"
    wildcard_constraints:
        task=tasks_with("prepare"),
    priority: 1_000_000  # faults of data come to light before hours of training
    threads: processes_of
    resources:
        mem_mb=memory("prepare"),
        runtime=time_limit("prepare"),
    params:
        job=text_of("prepare"),
    message:
        "prepare {wildcards.task}"
    shell:
        command("prepare")


# A task of a series from the prepared files of the task that the series is of.
rule vary:
    input:
        unpack(inputs_of("vary")),
    output:
        train="data/{task}.train.safetensors",
        test="data/{task}.test.safetensors",
        summary="data/{task}.json",
    log:
        text="logs/vary/{task}.log",
        digests="digests/vary/{task}.sha256",
    benchmark:
        "benchmarks/vary/{task}.tsv"
    wildcard_constraints:
        task=tasks_with("vary"),
    priority: 1_000_000  # as `prepare`
    threads: 1
    resources:
        mem_mb=1000,
    params:
        job=text_of("vary"),
    message:
        "vary {wildcards.task}"
    shell:
        command("vary")


# Some images of each task.
rule sheets:
    input:
        **JOBS["sheets", ""].inputs,
    output:
        **JOBS["sheets", ""].outputs,
    log:
        text="logs/sheets.log",
        digests="digests/sheets.sha256",
    benchmark:
        "benchmarks/sheets.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        job=text_of("sheets"),
    message:
        "sheets"
    shell:
        command("sheets")
