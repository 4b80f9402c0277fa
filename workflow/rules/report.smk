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
        "tables.txt",
    )
]
SEARCHED = [node for node in NODES if tree.searches(CONFIGURATION, node) and not is_fixed(node)]
FIGURES = [f"figures/{name}.png" for name in ("scores", "shares", *(["search"] if SEARCHED else []))]
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
        matrix="tables/matrix.csv",
        final="tables/final.csv",
        trials=[f"{node.folder}/trials.csv" for node in SEARCHED],
        choices=[f"{node.folder}/choice.json" for node in SEARCHED],
    output:
        scores=report(
            "figures/scores.png",
            caption="../report/scores.rst",
            category="Scores",
        ),
        shares=report(
            "figures/shares.png",
            caption="../report/shares.rst",
            category="Capacity",
        ),
        search=(
            [
                report(
                    "figures/search.png",
                    caption="../report/search.rst",
                    category="Search",
                )
            ]
            if SEARCHED
            else []
        ),
        each_search=EACH_SEARCH,
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
            },
        ),
    message:
        "figures"
    shell:
        step(
            "figures",
            "--matrix {input.matrix:q} --final {input.final:q} --trials {input.trials:q} --choices {input.choices:q} "
            "--scores-figure {output.scores:q} --shares-figure {output.shares:q} --search-figure {output.search:q} --each-search {output.each_search:q}",
        )
