# Tables and figures from all scores.

TABLES = [
    f"tables/{name}"
    for name in (
        "scores.csv",
        "final.csv",
        "summary.csv",
        "data.csv",
        "plot.csv",
        "metrics.json",
        "tables.txt",
        "trials.csv",
    )
]
SEARCHED = [node for node in NODES if tree.searches(CONFIGURATION, node) and not is_fixed(node)]
FIGURES = [f"figures/{name}.png" for name in ("scores", "shares", *(["search"] if SEARCHED else []))]
EACH_SEARCH = [f"figures/searches/{node.folder.removeprefix('nodes/')}.png" for node in SEARCHED]
SHEETS = [f"figures/data/{task}.png" for task in sorted(TASKS)]


rule tables:
    input:
        node_scores=[f"{node.folder}/scores.json" for node in NODES],
        summaries=[f"data/{task}.json" for task in sorted(TASKS)],
        trials=[f"{node.folder}/trials.csv" for node in SEARCHED],
    output:
        scores="tables/scores.csv",
        final="tables/final.csv",
        summary="tables/summary.csv",
        data="tables/data.csv",
        plot="tables/plot.csv",
        metrics="tables/metrics.json",
        text="tables/tables.txt",
        all_trials="tables/trials.csv",
    log:
        text="logs/tables.log",
        digests="digests/tables.sha256",
    benchmark:
        "benchmarks/tables.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        spec=spec(
            "tables",
            {
                "nodes": [
                    {
                        "network": node.network,
                        "method": node.method,
                        "seed": node.seed,
                        "prefix": node.prefix,
                    }
                    for node in NODES
                ],
                "searches": [node.folder.removeprefix("nodes/") for node in SEARCHED],
                "sequences": {name: sequence.model_dump() for name, sequence in CONFIGURATION.sequences.items()},
            },
        ),
    message:
        "tables"
    shell:
        step(
            "tables",
            "--node-scores {input.node_scores:q} --summaries {input.summaries:q} --trials {input.trials:q} --scores {output.scores:q} --final {output.final:q} "
            "--summary {output.summary:q} --data {output.data:q} --plot {output.plot:q} --metrics {output.metrics:q} --text {output.text:q} --all-trials {output.all_trials:q}",
        )


rule figures:
    input:
        scores="tables/scores.csv",
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
                "sequences": {name: sequence.model_dump() for name, sequence in CONFIGURATION.sequences.items()},
                "searches": [node.folder.removeprefix("nodes/") for node in SEARCHED],
            },
        ),
    message:
        "figures"
    shell:
        step(
            "figures",
            "--scores {input.scores:q} --trials {input.trials:q} --choices {input.choices:q} "
            "--scores-figure {output.scores:q} --shares-figure {output.shares:q} --search-figure {output.search:q} --each-search {output.each_search:q}",
        )
