# Test scores of every task that a network has learned, and some images to look at. No other rules read a test split.


rule evaluate:
    input:
        network="nodes/{node}/network.safetensors",
        tests=lambda wildcards: [prepared(task, "test") for task in node_at(wildcards).tasks],
    output:
        scores="nodes/{node}/scores.json",
    log:
        text="logs/evaluate/{node}.log",
        digests="digests/evaluate/{node}.sha256",
    benchmark:
        "benchmarks/evaluate/{node}.tsv"
    threads: CONFIGURATION.threads
    resources:
        mem_mb=4000,
        gpu=gpus,
    params:
        spec=spec("evaluate", {"threads": CONFIGURATION.threads}),
    message:
        "evaluate {wildcards.node}"
    shell:
        step(
            "evaluate",
            "--network {input.network:q} --tests {input.tests:q} --scores {output.scores:q}",
        )


rule examples:
    input:
        network="nodes/{node}/network.safetensors",
        test=lambda wildcards: prepared(wildcards.task, "test"),
    output:
        examples="nodes/{node}/examples.{task}.safetensors",
    log:
        text="logs/examples/{node}/{task}.log",
        digests="digests/examples/{node}/{task}.sha256",
    benchmark:
        "benchmarks/examples/{node}/{task}.tsv"
    threads: CONFIGURATION.threads
    resources:
        mem_mb=4000,
        gpu=gpus,
    params:
        spec=lambda wildcards: spec("examples", {"task": wildcards.task, "threads": CONFIGURATION.threads}),
    message:
        "examples {wildcards.node}: {wildcards.task}"
    shell:
        step(
            "examples",
            "--network {input.network:q} --test {input.test:q} --examples {output.examples:q}",
        )
