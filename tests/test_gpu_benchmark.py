"""The benchmark for GPUs runs on a CPU, too: with tiny networks, so that it works when a card is
there."""

import csv
import importlib.util
import subprocess
import sys

import pytest

from conftest import ROOT

SCRIPT = ROOT / "benchmarks/gpu.py"
MINIATURE = ["--miniature", "--device", "cpu", "--out"]


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def gpu(monkeypatch):
    spec = importlib.util.spec_from_file_location("benchmark_gpu", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_every_group_gives_rows_and_on_a_cpu_all_is_equal_to_the_bit(tmp_path, gpu):
    out = tmp_path / "gpu.csv"
    ran = subprocess.run(
        [sys.executable, SCRIPT, *MINIATURE, out], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    rows = table(out)
    assert {row["group"] for row in rows} == set(gpu.GROUPS)
    assert "failed" not in {row["measure"] for row in rows}
    assert {row["repeatable"] for row in rows} == {"yes", ""}
    facts = [row for row in rows if row["unit"] == "1 is yes"]
    assert len(facts) > 10
    assert {row["value"] for row in facts} == {"1"}
    for name in gpu.GROUPS:
        assert f"{name}: ends after" in ran.stdout


def test_a_group_that_fails_gives_a_row_and_the_others_go_on(tmp_path, gpu, monkeypatch, capsys):
    def fails(bench):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gpu, "GROUPS", {"repeat": fails, "compile": gpu.compiled})
    out = tmp_path / "gpu.csv"
    monkeypatch.setattr(sys, "argv", ["gpu.py", *MINIATURE, str(out)])
    assert gpu.main() == 1
    assert [(row["group"], row["measure"]) for row in table(out)] == [
        ("repeat", "failed"),
        ("compile", "skipped"),
    ]
    assert "out of memory" in capsys.readouterr().err
