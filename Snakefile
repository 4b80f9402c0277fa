# One network, many tasks, nothing forgotten. Run it with `make run CONFIG=<name>`; see README.md.


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/packing.smk"
include: "workflow/rules/baselines.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        TABLES,
        FIGURES,
        MASKS,
        SHEETS,
        # what is in between too, so that a file that was deleted is made again
        [path for node in NODES for path in files_of(node)],
    message:
        "all results"


# a few places on the way, for those who want to stop there


rule prepared:
    input:
        [prepared(task) for task in sorted(TASKS)],


rule networks:
    input:
        [f"{node.folder}/network.safetensors" for node in NODES],


rule tables_only:
    input:
        TABLES,


onstart:
    refuse_replaced_profile()
    take_results()


onsuccess:
    print(f"\n{account(workflow.dag)}")


onerror:
    # Snakemake's own account is long, and what the steps had to say is far above
    print("\n".join([*errors_of_steps(), "`make run` goes on where this stopped"]), file=sys.stderr)
