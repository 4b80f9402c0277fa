# Tables and figures from all scores.

TABLES = [
    f"tables/{name}"
    for name in (
        "scores.csv",
        "curves.csv",
        "final.csv",
        "matrix.csv",
        "runs.csv",
        "summary.csv",
        "paired.csv",
        "data.csv",
        "plot.csv",
        "trials.csv",
        "metrics.json",
        "summary.md",
        "summary.tex",
        "tables.txt",
    )
]
SEARCHED = [node for node in NODES if tree.searches(CONFIGURATION, node) and not is_fixed(node)]
# Who owns what is shown at the end of the first order of each sequence, for the first seed.
PACKED = {}
for run in tree.runs(CONFIGURATION):
    if isinstance(CONFIGURATION.methods[run.method], Packing):
        PACKED.setdefault(f"{run.sequence}: {run.method}", run.stages[-1][0])
FIGURES = [
    f"figures/{name}.png"
    for name in (
        *("scores", "matrix", "sizes", "curves"),
        *(("shares", "layers") if PACKED else ()),
        *(("search", "difficulty") if SEARCHED else ()),
    )
]
# For each segmentation task of a sequence, what the networks of each method make of it when it is learned and at the
# end: in the first order, for the first seed.
SEGMENTED = {}
for run in tree.runs(CONFIGURATION):
    for position, task in enumerate(run.tasks, 1):
        methods = SEGMENTED.setdefault((run.sequence, task), {})
        if CONFIGURATION.tasks[task].kind == "segmentation":
            stages = (run.stages[position - 1], run.stages[-1])
            serving = [node for stage in stages for node in stage if task in node.tasks]
            methods.setdefault(run.method, list(dict.fromkeys(serving)))
MASKS = [f"figures/masks/{sequence}.{task}.png" for (sequence, task), methods in SEGMENTED.items() if methods]
EACH_SEARCH = [f"figures/searches/{node.folder.removeprefix('nodes/')}.png" for node in SEARCHED]
SHEETS = [f"figures/data/{task}.png" for task in sorted(TASKS)]


def tables_settings() -> dict:
    searching = {name: method.ratio.budget for name, method in CONFIGURATION.methods.items() if tree.is_search(method)}
    return {
        "nodes": [
            {"network": node.network, "method": node.method, "seed": node.seed, "prefix": node.prefix} for node in NODES
        ],
        "runs": [
            {
                "sequence": run.sequence,
                "network": run.network,
                "method": run.method,
                "type": CONFIGURATION.methods[run.method].type,
                "seed": run.seed,
                "tasks": run.tasks,
                "stages": [["+".join(node.prefix) for node in stage] for stage in run.stages],
            }
            for run in tree.runs(CONFIGURATION)
        ],
        "searches": [node.folder.removeprefix("nodes/") for node in SEARCHED],
        "budgets": searching,
    }


rule tables:
    input:
        node_scores=[f"{node.folder}/scores.json" for node in NODES],
        summaries=[f"data/{task}.json" for task in sorted(TASKS)],
        trials=[f"{node.folder}/trials.csv" for node in SEARCHED],
    output:
        TABLES,
    log:
        text="logs/tables.log",
        digests="digests/tables.sha256",
    benchmark:
        "benchmarks/tables.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        spec=spec("tables", tables_settings()),
    message:
        "tables"
    shell:
        step(
            "tables",
            "--node-scores {input.node_scores:q} --summaries {input.summaries:q} --trials {input.trials:q} --folder tables",
        )


rule figures:
    input:
        tables=TABLES,
        trials=[f"{node.folder}/trials.csv" for node in SEARCHED],
        choices=[f"{node.folder}/choice.json" for node in SEARCHED],
        packed_scores=[f"{node.folder}/scores.json" for node in PACKED.values()],
    output:
        FIGURES,
        EACH_SEARCH,
    log:
        text="logs/figures.log",
        digests="digests/figures.sha256",
    benchmark:
        "benchmarks/figures.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        spec=spec(
            "figures",
            {
                "searches": [node.folder.removeprefix("nodes/") for node in SEARCHED],
                "packed": [{"title": title, "tasks": node.tasks} for title, node in PACKED.items()],
            },
        ),
    message:
        "figures"
    shell:
        step(
            "figures",
            "--tables tables --trials {input.trials:q} --choices {input.choices:q} "
            "--packed-scores {input.packed_scores:q} --folder figures",
        )


def segmented(wildcards) -> dict[str, list[tree.Node]]:
    return SEGMENTED[(wildcards.sequence, wildcards.task)]


def masks_settings(wildcards) -> dict:
    return {
        "title": f"{wildcards.sequence}: {wildcards.task}",
        "task": wildcards.task,
        "methods": [{"name": method, "networks": len(nodes)} for method, nodes in segmented(wildcards).items()],
    }


rule masks:
    input:
        examples=lambda wildcards: [
            f"{node.folder}/examples.{wildcards.task}.safetensors"
            for nodes in segmented(wildcards).values()
            for node in nodes
        ],
        node_scores=lambda wildcards: [
            f"{node.folder}/scores.json" for nodes in segmented(wildcards).values() for node in nodes
        ],
    output:
        figure="figures/masks/{sequence}.{task}.png",
    log:
        text="logs/masks/{sequence}.{task}.log",
        digests="digests/masks/{sequence}.{task}.sha256",
    benchmark:
        "benchmarks/masks/{sequence}.{task}.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        spec=lambda wildcards: spec("masks", masks_settings(wildcards)),
    message:
        "masks {wildcards.sequence}: {wildcards.task}"
    shell:
        step("masks", "--examples {input.examples:q} --scores {input.node_scores:q} --figure {output.figure:q}")
