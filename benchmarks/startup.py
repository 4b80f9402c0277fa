"""How much of a run's time goes into starting processes.

    python benchmarks/startup.py results/demo

Reads how long each job took (results/<name>/benchmarks, written by Snakemake) and measures, three
times and by the median, the processor time in which each step imports what it uses, the libraries
of its network included: that is what starting takes on a machine with nothing else to do.
"""

import resource
import statistics
import subprocess
import sys
from pathlib import Path

import pandas as pd

NETWORKS = {
    "small": "from acll.networks.build import build; from acll.networks.spec import "
    "BackboneNetwork as N; "
    "build(N(backbone='resnet_small'), 'classification', 2, 0)",
    "unet": "from acll.networks.build import build; from acll.networks.spec import "
    "DecoderNetwork as N; "
    "build(N(decoder='unet', encoder='resnet_small'), 'segmentation', 2, 0)",
}


def seconds(code: str) -> float:
    """Median processor time of three runs of Python with this code."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(times)


def main() -> None:
    folder = Path(sys.argv[1]) / "benchmarks"
    if not folder.is_dir():
        sys.exit(f"{folder}: there is no such folder; run the pipeline first")
    rows, known = [], {}
    for path in sorted(folder.rglob("*.tsv")):
        parts = path.relative_to(folder).parts
        step = parts[0].removesuffix(".tsv")
        network = (
            parts[1] if len(parts) > 2 and parts[1] in NETWORKS and step not in ("prune",) else None
        )
        if (step, network) not in known:
            code = f"import acll.steps.{step}" + (f"; {NETWORKS[network]}" if network else "")
            known[step, network] = seconds(code)
        rows.append((step, float(pd.read_csv(path, sep="\t")["s"].iloc[0]), known[step, network]))
    table = pd.DataFrame(rows, columns=["step", "job_s", "start_s"]).groupby("step", sort=False)
    summary = table.agg(jobs=("job_s", "size"), job_s=("job_s", "sum"), start_s=("start_s", "sum"))
    summary.loc["all"] = summary.sum()
    summary["start_share"] = summary["start_s"] / summary["job_s"]
    summary["jobs"] = summary["jobs"].astype(int)
    print(summary.round(2).to_string())


if __name__ == "__main__":
    main()
