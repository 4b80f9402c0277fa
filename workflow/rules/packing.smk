# Train, search, prune, retrain: one more task in a packed network.


# The dense network of a first task depends on no method: it lies under `dense` and all methods share it.
rule train:
    input:
        train=train_data,
        parent=parent_network,
    output:
        dense="nodes/{node}/dense.safetensors",
    log:
        text="logs/train/{node}.log",
        digests="digests/train/{node}.sha256",
    benchmark:
        "benchmarks/train/{node}.tsv"
    wildcard_constraints:
        node=methods_of(Packing, FineTuning, Frozen, others=(tree.DENSE,)),
    threads: CONFIGURATION.threads
    resources:
        mem_mb=4000,
        gpu=gpus,
    params:
        spec=lambda wildcards: spec(
            "train", train_settings(node_at(wildcards)), outside=WEIGHTS[node_at(wildcards).network]
        ),
    message:
        "train {wildcards.node}"
    shell:
        step(
            "train",
            "--train {input.train:q} --parent {input.parent:q} --dense {output.dense:q}",
        )


rule search:
    input:
        dense=dense_network,
        parent=parent_network,
        train=train_data,
    output:
        trials="nodes/{node}/trials.csv",
        choice="nodes/{node}/choice.json",
    log:
        text="logs/search/{node}.log",
        digests="digests/search/{node}.sha256",
    benchmark:
        "benchmarks/search/{node}.tsv"
    priority: 10  # the longest chain of jobs goes through the searches: they do not wait for others
    threads: CONFIGURATION.threads
    resources:
        mem_mb=4000,
        gpu=gpus,
    params:
        spec=lambda wildcards: spec("search", search_settings(node_at(wildcards))),
    message:
        "search {wildcards.node}"
    shell:
        step(
            "search",
            "--dense {input.dense:q} --parent {input.parent:q} --train {input.train:q} "
            "--trials {output.trials:q} --choice {output.choice:q}",
        )


rule prune:
    input:
        dense=dense_network,
        parent=parent_network,
        choice=choice_of_search,
    output:
        pruned="nodes/{node}/pruned.safetensors",
    log:
        text="logs/prune/{node}.log",
        digests="digests/prune/{node}.sha256",
    benchmark:
        "benchmarks/prune/{node}.tsv"
    threads: 1
    resources:
        mem_mb=4000,
    params:
        spec=lambda wildcards: spec("prune", prune_settings(node_at(wildcards))),
    message:
        "prune {wildcards.node}"
    shell:
        step(
            "prune",
            "--dense {input.dense:q} --parent {input.parent:q} --choice {input.choice:q} --pruned {output.pruned:q}",
        )


rule retrain:
    input:
        pruned="nodes/{node}/pruned.safetensors",
        parent=parent_network,
        train=train_data,
    output:
        network="nodes/{node}/network.safetensors",
    log:
        text="logs/retrain/{node}.log",
        digests="digests/retrain/{node}.sha256",
    benchmark:
        "benchmarks/retrain/{node}.tsv"
    wildcard_constraints:
        node=methods_of(Packing),
    threads: CONFIGURATION.threads
    resources:
        mem_mb=4000,
        gpu=gpus,
    params:
        spec=lambda wildcards: spec("retrain", {"node": node_settings(node_at(wildcards), DENSE_ONLY)}),
    message:
        "retrain {wildcards.node}"
    shell:
        step(
            "retrain",
            "--pruned {input.pruned:q} --parent {input.parent:q} --train {input.train:q} --network {output.network:q}",
        )
