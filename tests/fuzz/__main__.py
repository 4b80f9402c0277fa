"""Damage raw data by the thousand and prepare them, in processes that may die or hang.

`make fuzz` goes on where it was stopped. `python -m fuzz --case 123` (in `tests`) runs one case
again, for which a traceback is shown.
"""

import argparse
import contextlib
import faulthandler
import io
import json
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0  # seconds that a case may take
_BLOCK = 25  # cases that a process is handed
_PROCESSES = 2


def main() -> None:
    """Parse the command line, and run."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="damaged files in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="run this one case again")
    parser.add_argument("--block", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.block is not None:
        _work(given.seed, range(*given.block))
    elif given.case is not None:
        from fuzz.cases import run

        with tempfile.TemporaryDirectory() as folder:
            print(run(given.seed, given.case, Path(folder) / "case"))
    else:
        state = ROOT / f".cache/fuzz/seed{given.seed}.jsonl"
        state.parent.mkdir(parents=True, exist_ok=True)
        sys.exit(Campaign(given.seed, given.inputs, state).run())


def _work(seed: int, numbers: range) -> None:
    """Run cases, and print a line of JSON for each."""
    import traceback

    from fuzz.cases import run

    faulthandler.enable()
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            print(json.dumps({"begin": number}), flush=True)
            result: dict[str, Any] = {"number": number}
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    result |= asdict(run(seed, number, Path(folder) / "case"))
            except Exception:
                result["finding"] = traceback.format_exc()
            print(json.dumps(result), flush=True)


class Campaign:
    """All cases of a seed, until enough files were damaged; each result is a line of `state`."""

    def __init__(self, seed: int, inputs: int, state: Path) -> None:
        self.seed, self.wanted, self.state = seed, inputs, state
        self.results: dict[int, dict[str, Any]] = {}
        if state.is_file():
            for line in state.read_text().splitlines():
                with contextlib.suppress(ValueError):  # cut off by a kill
                    result = json.loads(line)
                    self.results[result["number"]] = result
        self.next = 0
        self.lock = threading.Lock()
        self.begun = time.monotonic()
        self.told = 0.0

    def run(self) -> int:
        """Run what is left, and return the exit code."""
        threads = [threading.Thread(target=self._thread, daemon=True) for _ in range(_PROCESSES)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(self._summary())
        return 1 if self._findings() else 0

    def _thread(self) -> None:
        while (block := self._block()) is not None:
            at = block.start
            while at < block.stop:
                at = self._run_block(range(at, block.stop))

    def _block(self) -> range | None:
        """Return numbers of cases that were not run yet; None where there were enough."""
        with self.lock:
            if sum(result.get("inputs", 0) for result in self.results.values()) >= self.wanted:
                return None
            while self.next in self.results:
                self.next += 1
            block = range(self.next, self.next + _BLOCK)
            self.next = block.stop
            return block

    def _run_block(self, numbers: range) -> int:
        """Run cases in a process of their own; return the first number that it left."""
        command = [sys.executable, "-m", "fuzz", "--seed", str(self.seed)]
        command += ["--block", str(numbers.start), str(numbers.stop)]
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(
                command, cwd=ROOT / "tests", stdout=subprocess.PIPE, stderr=errors, text=True
            ) as child,
        ):
            at, how = numbers.start, "died"
            for line in _lines(child):
                if line is None:
                    child.kill()
                    how = f"took more than {PATIENCE:.0f} s"
                    break
                result = json.loads(line)
                at = result.get("begin", at)
                if "number" in result:
                    self._note(result)
                    at = result["number"] + 1
            child.wait()
            if at < numbers.stop:
                errors.seek(0)
                said = errors.read().decode(errors="replace")[-3000:]
                self._note({"number": at, "finding": f"its process {how}\n{said}"})
                at += 1
        return at

    def _note(self, result: dict[str, Any]) -> None:
        with self.lock:
            self.results[result["number"]] = result
            with self.state.open("a") as file:
                file.write(json.dumps(result) + "\n")
            if "finding" in result:
                last = result["finding"].strip().splitlines()[-1]
                print(f"case {result['number']}: {last}", flush=True)
            if time.monotonic() > self.told + 60:
                self.told = time.monotonic()
                print(self._summary(), flush=True)

    def _findings(self) -> list[int]:
        return sorted(number for number, result in self.results.items() if "finding" in result)

    def _summary(self) -> str:
        sound = [result for result in self.results.values() if "finding" not in result]
        kinds: Counter[str] = Counter()
        for result in sound:
            kinds[result["kind"]] += result["inputs"]
        inputs, used = sum(kinds.values()), sum(result["used"] for result in sound)
        refused = sum(bool(result["refused"]) for result in sound)
        left_out = sum(result["left_out"] for result in sound)
        of_kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
        return (
            f"{inputs:,} damaged files in {len(sound):,} data sets ({of_kinds}): {used:,} samples "
            f"used, {left_out:,} left out, {refused:,} data sets refused; "
            f"{len(self._findings())} findings {self._findings()[:20]}; "
            f"{time.monotonic() - self.begun:.0f} s"
        )


def _lines(child: "subprocess.Popen[str]") -> Iterator[str | None]:
    """Yield the lines that a process prints; None where it is silent for too long."""
    assert child.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(PATIENCE):
                yield None
                return
            line = child.stdout.readline()
            if not line:
                return
            yield line


if __name__ == "__main__":
    main()
