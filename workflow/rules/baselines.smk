# What packing is compared with.


# The trained network as it is: nothing is released, or everything has moved on.
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
        node=methods_of(Individual, FineTuning, Frozen, LwF, EWC),
    threads: 1
    resources:
        mem_mb=4000,
    params:
        spec=lambda wildcards: spec("adopt", adopt_settings(node_at(wildcards))),
    message:
        "adopt {wildcards.node}"
    shell:
        step(
            "adopt",
            "--dense {input.dense:q} --parent {input.parent:q} --network {output.network:q}",
        )


# All tasks of a set at once.
rule join:
    input:
        trains=lambda wildcards: [prepared(task) for task in node_at(wildcards).tasks],
    output:
        network="nodes/{node}/network.safetensors",
    log:
        text="logs/join/{node}.log",
        digests="digests/join/{node}.sha256",
    benchmark:
        "benchmarks/join/{node}.tsv"
    wildcard_constraints:
        node=methods_of(Joint),
    threads: CONFIGURATION.threads
    resources:
        mem_mb=4000,
        gpu=gpus,
    params:
        spec=lambda wildcards: spec(
            "join", join_settings(node_at(wildcards)), outside=WEIGHTS[node_at(wildcards).network]
        ),
    message:
        "join {wildcards.node}"
    shell:
        step("join", "--trains {input.trains:q} --network {output.network:q}")


# Learning without forgetting.
rule distil:
    input:
        train=train_data,
        parent=parent_network,
    output:
        dense="nodes/{node}/dense.safetensors",
    log:
        text="logs/distil/{node}.log",
        digests="digests/distil/{node}.sha256",
    benchmark:
        "benchmarks/distil/{node}.tsv"
    wildcard_constraints:
        node=methods_of(LwF),
    threads: CONFIGURATION.threads
    resources:
        mem_mb=4000,
        gpu=gpus,
    params:
        spec=lambda wildcards: spec("distil", regularised_settings(node_at(wildcards), "lwf")),
    message:
        "distil {wildcards.node}"
    shell:
        step(
            "distil",
            "--train {input.train:q} --parent {input.parent:q} --dense {output.dense:q}",
        )


# Elastic weight consolidation: what each task needs, and training that heeds it.
rule importance:
    input:
        network="nodes/{node}/network.safetensors",
        before=importance_of_parent,
        train=train_data,
    output:
        importance="nodes/{node}/importance.safetensors",
    log:
        text="logs/importance/{node}.log",
        digests="digests/importance/{node}.sha256",
    benchmark:
        "benchmarks/importance/{node}.tsv"
    wildcard_constraints:
        node=methods_of(EWC),
    threads: CONFIGURATION.threads
    resources:
        mem_mb=4000,
        gpu=gpus,
    params:
        spec=lambda wildcards: spec(
            "importance", {"node": node_settings(node_at(wildcards), set(Training.model_fields))}
        ),
    message:
        "importance {wildcards.node}"
    shell:
        step(
            "importance",
            "--network {input.network:q} --before {input.before:q} --train {input.train:q} "
            "--importance {output.importance:q}",
        )


rule consolidate:
    input:
        train=train_data,
        parent=parent_network,
        importance=importance_of_parent,
    output:
        dense="nodes/{node}/dense.safetensors",
    log:
        text="logs/consolidate/{node}.log",
        digests="digests/consolidate/{node}.sha256",
    benchmark:
        "benchmarks/consolidate/{node}.tsv"
    wildcard_constraints:
        node=methods_of(EWC),
    threads: CONFIGURATION.threads
    resources:
        mem_mb=4000,
        gpu=gpus,
    params:
        spec=lambda wildcards: spec("consolidate", regularised_settings(node_at(wildcards), "ewc")),
    message:
        "consolidate {wildcards.node}"
    shell:
        step(
            "consolidate",
            "--train {input.train:q} --parent {input.parent:q} --importance {input.importance:q} "
            "--dense {output.dense:q}",
        )
