"""The live display of a run: which jobs run, what they say, how many have ended, the time left."""

import time
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from snakemake_logger_plugin_acll.progress import Progress, last_line, shown

_A_SECOND = 2  # times that it is drawn in a second


class Display:
    """The display, from its making until `stop`."""

    def __init__(self, progress: Progress, stream: TextIO) -> None:
        self._progress = progress
        self._live = Live(
            get_renderable=self._frame,
            console=Console(file=stream),
            refresh_per_second=_A_SECOND,
            transient=True,
        )
        self._live.start()

    def stop(self) -> None:
        """Take it off the screen."""
        self._live.stop()

    def _frame(self) -> Group:
        progress, now = self._progress, time.monotonic()
        jobs = Table.grid(padding=(0, 2), expand=True)
        jobs.add_column(no_wrap=True)
        jobs.add_column(justify="right", no_wrap=True)
        jobs.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        running = list(progress.running.values())
        at_work = [job for job in running if job.at_work]
        for job in at_work:
            said = last_line(job.log) if job.log is not None else ""
            jobs.add_row(Text(job.message), shown(now - job.began), Text(said, style="dim"))
        whole = Table.grid(padding=(0, 2))
        left = progress.seconds_left(now)
        words = f"{progress.done} of {progress.total} jobs, {shown(now - progress.began)}"
        words += f"; about {shown(left)} left" if left is not None else ""
        waiting = len(running) - len(at_work)
        words += f"; {waiting} steps with the scheduler" if waiting else ""
        whole.add_row(ProgressBar(progress.total, progress.done, width=30), words)
        return Group(jobs, whole)
