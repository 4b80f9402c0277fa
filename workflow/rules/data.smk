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
    priority: 100  # faults of data come to light before hours of training
    threads: lambda wildcards: 1 if made_here(wildcards.task) else 4
    resources:
        mem_mb=4000,
    params:
        spec=lambda wildcards: spec(
            "prepare",
            {
                "name": wildcards.task,
                "task": CONFIGURATION.tasks[wildcards.task].model_dump(exclude={"training"}),
                "channels": channels_of(wildcards.task),
            },
            outside=RAW[wildcards.task],
        ),
    message:
        "prepare {wildcards.task}"
    shell:
        step(
            "prepare",
            "--train {output.train:q} --test {output.test:q} --summary {output.summary:q} "
            "--report {log.report:q} --processes {threads}",
        )


rule sheet:
    input:
        train="data/{task}.train.safetensors",
        summary="data/{task}.json",
    output:
        figure="figures/data/{task}.png",
    log:
        text="logs/sheet/{task}.log",
        digests="digests/sheet/{task}.sha256",
    benchmark:
        "benchmarks/sheet/{task}.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        spec=spec("sheet", {}),
    message:
        "sheet {wildcards.task}"
    shell:
        step("sheet", "--train {input.train:q} --summary {input.summary:q} --figure {output.figure:q}")
