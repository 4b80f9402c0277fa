# What packing is compared with.


# Plain fine-tuning: the trained network takes the place of the old one.
rule adopt:
    input:
        dense=dense_network,
        parent=parent_network,
    output:
        network="nodes/{node}/network.safetensors",
    log:
        text="logs/adopt/{node}.log",
        digests="digests/adopt/{node}.sha256",
    benchmark:
        "benchmarks/adopt/{node}.tsv"
    wildcard_constraints:
        node=methods_of(FineTuning),
    threads: 1
    resources:
        mem_mb=4000,
    params:
        spec=lambda wildcards: spec("adopt", {"node": node_settings(node_at(wildcards), set(Training.model_fields))}),
    message:
        "adopt {wildcards.node}"
    shell:
        step(
            "adopt",
            "--dense {input.dense:q} --parent {input.parent:q} --network {output.network:q}",
        )
