# Raw data → prepared files of a task. The test split goes into a file of its own.


rule prepare:
    output:
        train="data/{task}.train.safetensors",
        test="data/{task}.test.safetensors",
    log:
        text="logs/prepare/{task}.log",
        digests="digests/prepare/{task}.sha256",
    benchmark:
        "benchmarks/prepare/{task}.tsv"
    threads: 1
    resources:
        mem_mb=4000,
    params:
        spec=lambda wildcards: spec(
            "prepare",
            {
                "name": wildcards.task,
                "task": CONFIGURATION.tasks[wildcards.task].model_dump(exclude={"training"}),
            },
            outside=RAW[wildcards.task],
        ),
    message:
        "prepare {wildcards.task}"
    shell:
        step("prepare", "--train {output.train:q} --test {output.test:q}")
