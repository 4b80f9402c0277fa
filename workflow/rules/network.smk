# The network of a node: one more task in what the node before has learned.


# A packed network that was made elsewhere, from below the data root.
rule adopt:
    output:
        network="given/{network}.safetensors",
    log:
        text="logs/adopt/{network}.log",
        digests="digests/adopt/{network}.sha256",
    benchmark:
        "benchmarks/adopt/{network}.tsv"
    priority: 1_000_000  # as `prepare`: its faults come to light before hours of training
    threads: 1
    resources:
        mem_mb=4000,
    params:
        job=text_of("adopt"),
    message:
        "adopt {wildcards.network}"
    shell:
        command("adopt")


# The dense network. That of a first task depends on no method: it lies under `dense`, and all
# methods share it.
rule train:
    input:
        unpack(inputs_of("train")),
    output:
        dense="nodes/{node}/dense.safetensors",
    log:
        text="logs/train/{node}.log",
        digests="digests/train/{node}.sha256",
    benchmark:
        "benchmarks/train/{node}.tsv"
    wildcard_constraints:
        node=nodes_with("train"),
    priority: of_longest_chain("train")
    threads: CONFIGURATION.threads
    resources:
        mem_mb=memory("train"),
        runtime=time_limit("train"),
        gpu=gpus,
    params:
        job=text_of("train"),
    message:
        "train {wildcards.node}"
    shell:
        command("train")


# How much of what the task trained can be released.
rule search:
    input:
        unpack(inputs_of("search")),
    output:
        trials="nodes/{node}/trials.csv",
        choice="nodes/{node}/choice.json",
        held="nodes/{node}/held.safetensors",
    log:
        text="logs/search/{node}.log",
        digests="digests/search/{node}.sha256",
    benchmark:
        "benchmarks/search/{node}.tsv"
    wildcard_constraints:
        node=nodes_with("search"),
    priority: of_longest_chain("search")
    threads: CONFIGURATION.threads
    resources:
        mem_mb=memory("search"),
        runtime=time_limit("search"),
        gpu=gpus,
    params:
        job=text_of("search"),
    message:
        "search {wildcards.node}"
    shell:
        command("search")


# A wider network for a task that misses its goal within its cap.
rule grow:
    input:
        unpack(inputs_of("grow")),
    output:
        grown="nodes/{node}/grown.safetensors",
        grown_trials="nodes/{node}/grown_trials.csv",
        grown_choice="nodes/{node}/grown_choice.json",
        grown_held="nodes/{node}/grown_held.safetensors",
    log:
        text="logs/grow/{node}.log",
        digests="digests/grow/{node}.sha256",
    benchmark:
        "benchmarks/grow/{node}.tsv"
    wildcard_constraints:
        node=nodes_with("grow"),
    priority: of_longest_chain("grow")
    threads: CONFIGURATION.threads
    resources:
        mem_mb=memory("grow"),
        runtime=time_limit("grow"),
        gpu=gpus,
    params:
        job=text_of("grow"),
    message:
        "grow {wildcards.node}"
    shell:
        command("grow")


rule prune:
    input:
        unpack(inputs_of("prune")),
    output:
        pruned="nodes/{node}/pruned.safetensors",
    log:
        text="logs/prune/{node}.log",
        digests="digests/prune/{node}.sha256",
    benchmark:
        "benchmarks/prune/{node}.tsv"
    wildcard_constraints:
        node=nodes_with("prune"),
    priority: of_longest_chain("prune")
    threads: CONFIGURATION.threads
    resources:
        mem_mb=memory("prune"),
        runtime=time_limit("prune"),
        gpu=gpus,
    params:
        job=text_of("prune"),
    message:
        "prune {wildcards.node}"
    shell:
        command("prune")


# Packing: what is kept is retrained, and then owned by the task.
rule retrain:
    input:
        unpack(inputs_of("retrain")),
    output:
        network="nodes/{node}/network.safetensors",
    log:
        text="logs/retrain/{node}.log",
        digests="digests/retrain/{node}.sha256",
    benchmark:
        "benchmarks/retrain/{node}.tsv"
    wildcard_constraints:
        node=nodes_with("retrain"),
    priority: of_longest_chain("retrain")
    threads: CONFIGURATION.threads
    resources:
        mem_mb=memory("retrain"),
        runtime=time_limit("retrain"),
        gpu=gpus,
    params:
        job=text_of("retrain"),
    message:
        "retrain {wildcards.node}"
    shell:
        command("retrain")


# Other methods: the dense network joins the store as the method says.
rule commit:
    input:
        unpack(inputs_of("commit")),
    output:
        network="nodes/{node}/network.safetensors",
    log:
        text="logs/commit/{node}.log",
        digests="digests/commit/{node}.sha256",
    benchmark:
        "benchmarks/commit/{node}.tsv"
    wildcard_constraints:
        node=nodes_with("commit"),
    threads: CONFIGURATION.threads
    resources:
        mem_mb=memory("commit"),
        runtime=time_limit("commit"),
        gpu=gpus,
    params:
        job=text_of("commit"),
    message:
        "commit {wildcards.node}"
    shell:
        command("commit")


# What a method takes along to the next task, beside the network.
rule remember:
    input:
        unpack(inputs_of("remember")),
    output:
        memory="nodes/{node}/memory.safetensors",
    log:
        text="logs/remember/{node}.log",
        digests="digests/remember/{node}.sha256",
    benchmark:
        "benchmarks/remember/{node}.tsv"
    wildcard_constraints:
        node=nodes_with("remember"),
    threads: CONFIGURATION.threads
    resources:
        mem_mb=memory("remember"),
        runtime=time_limit("remember"),
        gpu=gpus,
    params:
        job=text_of("remember"),
    message:
        "remember {wildcards.node}"
    shell:
        command("remember")
