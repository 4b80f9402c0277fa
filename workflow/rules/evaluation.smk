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


# What a search has tried, and what it has chosen.
rule trace:
    input:
        unpack(inputs_of("trace")),
    output:
        figure="figures/searches/{node}.svg",
    log:
        text="logs/trace/{node}.log",
        digests="digests/trace/{node}.sha256",
    benchmark:
        "benchmarks/trace/{node}.tsv"
    wildcard_constraints:
        node=nodes_with("trace"),
    threads: 1
    resources:
        mem_mb=1000,
    params:
        job=text_of("trace"),
    message:
        "trace {wildcards.node}"
    shell:
        command("trace")


# Test images of a segmentation task, and what each method makes of them.
rule masks:
    input:
        unpack(inputs_of("masks")),
    output:
        figure="figures/masks/{shown}.png",
    log:
        text="logs/masks/{shown}.log",
        digests="digests/masks/{shown}.sha256",
    benchmark:
        "benchmarks/masks/{shown}.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        job=text_of("masks"),
    message:
        "masks {wildcards.shown}"
    shell:
        command("masks")


# The worst mistakes of each method in a task, at the end of a sequence.
rule mistakes:
    input:
        unpack(inputs_of("mistakes")),
    output:
        figure="figures/mistakes/{shown}.png",
    log:
        text="logs/mistakes/{shown}.log",
        digests="digests/mistakes/{shown}.sha256",
    benchmark:
        "benchmarks/mistakes/{shown}.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        job=text_of("mistakes"),
    message:
        "mistakes {wildcards.shown}"
    shell:
        command("mistakes")


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
