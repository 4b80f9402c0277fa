# Scores, tables and figures. `evaluate` is the one rule that reads test splits.


# Scores of every task that a network has learned, and some images to look at.
rule evaluate:
    input:
        unpack(inputs_of("evaluate")),
    output:
        scores="nodes/{node}/scores.json",
        examples="nodes/{node}/examples.safetensors",
    log:
        text="logs/evaluate/{node}.log",
        digests="digests/evaluate/{node}.sha256",
    benchmark:
        "benchmarks/evaluate/{node}.tsv"
    threads: CONFIGURATION.threads
    resources:
        mem_mb=memory("evaluate"),
        runtime=time_limit("evaluate"),
        gpu=gpus,
    params:
        job=text_of("evaluate"),
    message:
        "evaluate {wildcards.node}"
    shell:
        command("evaluate")


rule tables:
    input:
        **JOBS["tables", ""].inputs,
    output:
        **JOBS["tables", ""].outputs,
    log:
        text="logs/tables.log",
        digests="digests/tables.sha256",
    benchmark:
        "benchmarks/tables.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        job=text_of("tables"),
    message:
        "tables"
    shell:
        command("tables")


rule figures:
    input:
        **JOBS["figures", ""].inputs,
    output:
        **JOBS["figures", ""].outputs,
    log:
        text="logs/figures.log",
        digests="digests/figures.sha256",
    benchmark:
        "benchmarks/figures.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        job=text_of("figures"),
    message:
        "figures"
    shell:
        command("figures")
