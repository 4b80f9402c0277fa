"""A process that has imported the libraries of the steps, and forks them.

Importing takes seconds, a fork some milliseconds. A run starts the server when its first job starts
and ends it with itself. `acll.steps._client` asks it for a step; a step that was forked computes
the same bytes as one that was started. The server has one thread, has not touched a GPU and has
drawn no random number. One connection stands for one step: the server answers with the number of
the step's process, or null where it does not fork it, and then with its exit code; bytes from the
client are signals for the step, and the step ends when its client is gone. Snakemake's benchmarks
have the time of a forked step, not its memory.
"""

import contextlib
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from acll.config.configuration import Configuration
from acll.methods.packing import Packing
from acll.networks.spec import OWN_NETWORKS, BackboneNetwork, DecoderNetwork
from acll.processes import call_process, die_with_parent
from acll.steps._client import ALONE, SERVER, THREADS, refuse_other_users

LOG = Path(".snakemake/step_server.log")  # below the results
_PATIENCE = 10.0  # seconds that a client may take to say what it wants
_ENDING = 0.5  # seconds that a server may take to end


def libraries_of(configuration: Configuration) -> list[str]:
    """Return the libraries that steps import late: of networks, of the search, of optimizers."""
    networks, methods = configuration.specs.values(), configuration.methods.values()
    wanted = {
        "segmentation_models_pytorch": any(isinstance(one, DecoderNetwork) for one in networks),
        "torchvision.models": any(
            isinstance(one, BackboneNetwork) and one.backbone not in OWN_NETWORKS
            for one in networks
        ),
        "hyperopt": any(isinstance(one, Packing) and one.draws for one in methods),
        "torch._dynamo": True,  # imported by every optimizer, in more than a second
        # imported by each evaluation, in most of a second; last, since trainings come first
        "sklearn.metrics": any(
            configuration.tasks[name].kind == "classification" for name in configuration.learned()
        ),
    }
    return [library for library, is_wanted in wanted.items() if is_wanted]


class StepServer:
    """The server of a run, as the run holds it. It ends with the process that has started it."""

    def __init__(self, rules: Iterable[str], libraries: Iterable[str], threads: int) -> None:
        """Start the server.

        rules: the steps that it will be asked for. libraries: what else to import. threads: of each
        step; one that is to have another number starts as a process of its own.
        """
        name = f"acll-{secrets.token_hex(16)}"
        modules = [f"acll.steps.{rule}" for rule in rules if rule not in ALONE]
        environment = os.environ | dict.fromkeys(THREADS, str(threads))
        reading, self._life = os.pipe()
        with socket.socket(socket.AF_UNIX) as listener, LOG.open("wb") as log:
            listener.bind(f"\0{name}")
            # clients can connect from now on, and wait until the server is ready
            listener.listen(128)
            descriptors = [str(listener.fileno()), str(reading)]
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, *descriptors, *modules, *libraries],
                pass_fds=(listener.fileno(), reading),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the clients, which pass it on
            )
        os.close(reading)
        os.environ[SERVER] = name

    def stop(self) -> None:
        """End the server, and with it all steps that it has forked."""
        os.environ.pop(SERVER, None)
        os.close(self._life)
        try:
            self._process.wait(_ENDING)
        except subprocess.TimeoutExpired:  # it is still importing
            self._process.kill()
            self._process.wait()


@dataclass
class _Step:
    """A step that was forked, and the connection to its client."""

    process: BaseProcess
    client: socket.socket


class _Server:
    """The loop. listener: the socket for new clients. life: ends when the run has ended."""

    def __init__(self, listener: socket.socket, life: int) -> None:
        self._listener = listener
        self._life = life
        self._steps: dict[int, _Step] = {}  # by the number of their processes
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._selector.register(life, selectors.EVENT_READ, self._end)

    def serve(self) -> None:
        """Answer until the run ends."""
        while True:
            for key, _ in self._selector.select():
                # what ended meanwhile has been unregistered
                if key.fd in self._selector.get_map():
                    key.data()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        client.settimeout(_PATIENCE)
        try:
            refuse_other_users(client)
            request, descriptors = _request(client)
        except (OSError, ValueError, EOFError):
            client.close()
            return
        if not self._can_fork(request):
            with contextlib.suppress(OSError):
                client.sendall(b"null\n")
            client.close()
        else:
            self._fork(client, request, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def _can_fork(self, request: Mapping[str, Any]) -> bool:
        environment = request["environment"]
        return all(environment.get(name) == os.environ.get(name) for name in THREADS)

    def _fork(
        self, client: socket.socket, request: Mapping[str, Any], descriptors: list[int]
    ) -> None:
        process = multiprocessing.get_context("fork").Process(
            target=self._become, args=(client, request, descriptors)
        )
        process.start()
        number = process.pid
        assert number is not None
        step = _Step(process, client)
        self._steps[number] = step
        self._selector.register(process.sentinel, selectors.EVENT_READ, lambda: self._ended(step))
        self._selector.register(client, selectors.EVENT_READ, lambda: self._relay(step))
        with contextlib.suppress(OSError):
            client.sendall(b"%d\n" % number)

    def _become(
        self, client: socket.socket, request: Mapping[str, Any], descriptors: list[int]
    ) -> None:
        """Be the step, in its own process."""
        die_with_parent()
        call_process(f"acll {request['step']}")
        self._selector.close()
        os.close(self._life)
        for connection in (client, self._listener, *(step.client for step in self._steps.values())):
            connection.close()
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        sys.stdin = os.fdopen(0, encoding="utf-8", errors="surrogateescape")
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        # whatever the server has inherited: the client passes on what it does not ignore
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        module = f"acll.steps.{request['step']}"
        sys.argv = [module, *request["arguments"]]
        sys.modules.pop(module, None)  # it runs as the main module, and is not to be there twice
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except Exception:
            traceback.print_exc()
            sys.exit(1)

    def _relay(self, step: _Step) -> None:
        """Pass signals on to a step; end it where its client is gone."""
        try:
            signals = step.client.recv(16)
        except OSError:
            signals = b""
        if not signals:
            self._selector.unregister(step.client)
            signals = bytes([signal.SIGTERM])
        for number in signals:
            with contextlib.suppress(ProcessLookupError):
                os.kill(step.process.pid or 0, number)

    def _ended(self, step: _Step) -> None:
        step.process.join()
        self._selector.unregister(step.process.sentinel)
        with contextlib.suppress(KeyError):
            self._selector.unregister(step.client)
        with contextlib.suppress(OSError):
            step.client.sendall(b"%d\n" % (step.process.exitcode or 0))
        step.client.close()
        del self._steps[step.process.pid or 0]
        step.process.close()

    def _end(self) -> None:
        """End this process, and with it all steps: their run has ended."""
        os._exit(0)


def _request(client: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return what a client wants, and its standard streams."""
    head, descriptors, _, _ = socket.recv_fds(client, 8, 3)
    length, content = int.from_bytes(head, "big"), bytearray()
    while len(content) < length:
        part = client.recv(length - len(content))
        if not part:
            raise EOFError
        content += part
    return json.loads(content), descriptors


def _preload(modules: Iterable[str]) -> None:
    """Import modules, so that what is forked has them.

    One that cannot be imported is left to the steps, which will say so.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            print(f"{module}: {error}", file=sys.stderr, flush=True)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        sys.exit("a library has started CUDA when it was imported: steps cannot be forked")
    gc.collect()
    gc.freeze()  # what all steps share stays shared


def main() -> None:
    """Serve a run: `python -m acll.steps._server LISTENER LIFE MODULE…`."""
    listener, life, *modules = sys.argv[1:]
    _preload(modules)
    _Server(socket.socket(fileno=int(listener)), int(life)).serve()


if __name__ == "__main__":
    main()
