# Test scores of every task that a network has learned. No other rule reads a test split.


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
