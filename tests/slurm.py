"""A real Slurm of one node on this machine, of ordinary processes."""

import contextlib
import os
import secrets
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SETTINGS = Path("/etc/slurm")  # where its commands look, whatever SLURM_CONF says to some of them
MINE = "# of the tests of acll\n"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
FILES = ("slurm.conf", "gres.conf", "cgroup.conf")
GPUS = 4

CONF = """\
{mine}ClusterName=acll
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0
MinJobAge=300
ReturnToService=2
KillWait=2
MpiDefault=none
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=16000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE DefaultTime=60 State=UP
"""


@dataclass(frozen=True)
class Slurm:
    """A running one. folder: of its files."""

    folder: Path

    def squeue(self, *arguments: str) -> list[str]:
        """What is in the queue, a line for each job."""
        command = ["squeue", "--noheader", *arguments]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        return run.stdout.splitlines()

    def running(self, comment: str, after: int = 0, seconds: float = 60.0) -> int:
        """Wait until a job after another one runs whose comment has these words; its number."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in self.squeue("--states=RUNNING", "--format=%A %k"):
                number, _, said = line.partition(" ")
                if comment in said and int(number) > after:
                    return int(number)
            time.sleep(0.2)
        raise AssertionError(f"no job of {comment} runs: {self.squeue()}")

    def set_partition(self, state: str) -> None:
        """DOWN: jobs wait. UP: they run."""
        command = ["scontrol", "update", "partitionname=main", f"state={state}"]
        subprocess.run(command, check=True)

    def waiting(self, after: int = 0, seconds: float = 60.0) -> int:
        """Wait until a job after another one waits in the queue; return its number."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for number in self.squeue("--states=PENDING", "--format=%A"):
                if int(number) > after:
                    return int(number)
            time.sleep(0.2)
        raise AssertionError(f"no job waits: {self.squeue()}")

    def wait_for_end(self, number: int, seconds: float = 60.0) -> None:
        """Wait until a job has left the queue."""
        deadline = time.monotonic() + seconds
        while str(number) in self.squeue("--format=%A"):
            assert time.monotonic() < deadline, self.squeue()
            time.sleep(0.2)

    def state(self) -> str:
        """What it knows and did last, for a person who looks for a fault."""
        commands = (["squeue"], ["scontrol", "show", "jobs"], ["ps", "-eo", "pid,ppid,stat,args"])
        runs = [subprocess.run(command, capture_output=True, text=True) for command in commands]
        return "\n".join([*(run.stdout for run in runs), *_last_lines(self.folder)])

    def restart_slurmd(self) -> None:
        """Kill the process that looks after the node, and start it anew."""
        subprocess.run(["kill", "-9", (self.folder / "slurmd.pid").read_text().strip()], check=True)
        time.sleep(1)
        subprocess.run(["slurmd"], check=True)


def why_not() -> str | None:
    """Why no Slurm can be started here; None where it can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"Slurm is not installed: no {', '.join(missing)}"
    if os.getuid() != 0:
        return "only root may start a Slurm"
    with tempfile.TemporaryDirectory() as folder:
        try:
            _make_card(Path(folder) / "gpu")
        except PermissionError:
            return "no device can be made here"
    if "SLURM_CONF" in os.environ:
        return "SLURM_CONF names another Slurm"
    for name in FILES:
        path = SETTINGS / name
        if path.exists() and not path.read_text().startswith(MINE):
            return f"{path} belongs to another Slurm"
    try:
        said = subprocess.run(["sinfo"], capture_output=True, check=False, timeout=20)
    except subprocess.TimeoutExpired:
        return None
    return None if said.returncode else "another Slurm answers here"


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Slurm]:
    """Start a Slurm with four GPUs that are none; end it at the end."""
    host = socket.gethostname().split(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    cards = [folder / f"gpu{number}" for number in range(GPUS)]
    for card in cards:
        _make_card(card)
    texts = {
        "slurm.conf": CONF.format(mine=MINE, host=host, folder=folder, gpus=GPUS),
        "gres.conf": MINE + "".join(f"Name=gpu File={card}\n" for card in cards),
        "cgroup.conf": f"{MINE}CgroupAutomount=no\n",
    }
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    folder.chmod(0o755)
    munged = [
        "munged", "--force", "--key-file", key, "--socket", folder / "munge.socket",
        "--pid-file", folder / "munged.pid", "--log-file", folder / "munged.log",
        "--seed-file", folder / "munge.seed",
    ]  # fmt: skip
    SETTINGS.mkdir(exist_ok=True)
    try:
        for name, text in texts.items():
            (SETTINGS / name).write_text(text)
        for command in (munged, ["slurmctld"], ["slurmd"]):
            subprocess.run(command, check=True)
        slurm = Slurm(folder)
        _wait_until_idle(slurm)
        yield slurm
    finally:
        for name in ("slurmd", "slurmctld", "munged"):
            _end(folder / f"{name}.pid", name)
        for name in texts:
            (SETTINGS / name).unlink(missing_ok=True)


def _make_card(path: Path) -> None:
    """Make a GPU that is none: Slurm wants a device, and this is another /dev/null."""
    os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))


def _wait_until_idle(slurm: Slurm) -> None:
    for _ in range(200):
        said = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True, check=False
        )
        if said.stdout.strip() == "idle":
            return
        time.sleep(0.1)
    raise AssertionError("\n".join(["the node does not become idle", *_last_lines(slurm.folder)]))


def _last_lines(folder: Path) -> list[str]:
    """The ends of the logs of a Slurm."""
    return [(folder / f"{name}.log").read_text()[-2000:] for name in ("slurmctld", "slurmd")]


def _end(file: Path, name: str) -> None:
    """End the process of a file, if it is still that program."""
    with contextlib.suppress(OSError):
        number = file.read_text().strip()
        if Path(f"/proc/{number}/comm").read_text().strip() == name:
            subprocess.run(["kill", number], check=False)
            for _ in range(100):
                if not Path(f"/proc/{number}").exists():
                    break
                time.sleep(0.05)
