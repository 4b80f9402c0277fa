"""A server of steps for the runs of many checkouts: each would start one of its own, which imports
for seconds. What it forks has the package of its checkout: it imports it anew where it is not
equal to ours.

    python step_server.py LISTENER LIFE
"""

import atexit
import functools
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acll.steps import _server
from acll.steps._client import ALONE, THREADS
from conftest import ROOT

SOURCE = ROOT / "src"
STEPS = [
    f"acll.steps.{path.stem}"
    for path in (SOURCE / "acll/steps").glob("[a-z]*.py")
    if path.stem not in ALONE
]
LIBRARIES = [
    "torch._dynamo", "torchvision.models", "segmentation_models_pytorch", "hyperopt",
    "sklearn.metrics",
]  # fmt: skip


@functools.cache
def step_server() -> str:
    """The name of the server of this process, which ends with it."""
    name = f"acll-tests-{secrets.token_hex(16)}"
    environment = os.environ | dict.fromkeys(THREADS, "1") | {"PYTHONPATH": str(SOURCE)}
    reading, life = os.pipe()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen(128)
        descriptors = (listener.fileno(), reading)
        process = subprocess.Popen(
            [sys.executable, __file__, *map(str, descriptors)],
            pass_fds=descriptors,
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    os.close(reading)
    atexit.register(process.wait)
    atexit.register(os.close, life)  # which is called first
    return name


def modules(source: Path) -> dict[Path, bytes]:
    """The content of the package's modules."""
    return {path.relative_to(source): path.read_bytes() for path in source.rglob("acll/**/*.py")}


@functools.cache
def ours() -> dict[Path, bytes]:
    """What this process has imported."""
    return modules(SOURCE)


class _SharedServer(_server._Server):
    def _become(
        self, client: socket.socket, request: Mapping[str, Any], descriptors: list[int]
    ) -> None:
        source = request["environment"]["PYTHONPATH"]
        if modules(Path(source)) != ours():
            for name in [name for name in sys.modules if name.split(".")[0] == "acll"]:
                del sys.modules[name]
        sys.path.insert(0, source)
        super()._become(client, request, descriptors)


if __name__ == "__main__":
    ours()
    _server._preload(STEPS + LIBRARIES)
    _SharedServer(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])).serve()
