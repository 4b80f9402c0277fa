"""A logger plugin of Snakemake: a live display in a terminal, a line for each job in a log.

Snakemake finds the plugin by the name of this package and expects the classes `LogHandler` and
`LogHandlerSettings` here; the default profile asks for it. Dry runs, and runs with
`--logger-acll-verbose`, show Snakemake's own messages.
"""

import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakemake.logging import ColorizingTextHandler, DefaultFormatter
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase

from snakemake_logger_plugin_acll.display import Display
from snakemake_logger_plugin_acll.progress import (
    Progress,
    Running,
    earlier_seconds,
    warnings_in,
)

# what follows when each job that failed has been named
_NEEDLESS = (
    "At least one job did not complete",
    "Exiting because a job execution failed",
    "RuleException",
    # of the executor for Slurm, where the profile names no account
    "No SLURM account given",
    "No account was given",
    "Unable to guess SLURM account",
    "MinJobAge",  # of its own look at jobs, which ours replaces
)


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):
    """What the command line may set."""

    verbose: bool = field(default=False, metadata={"help": "show all that Snakemake says"})


class LogHandler(LogHandlerBase):
    """The plugin."""

    def __post_init__(self) -> None:
        settings = self.common_settings
        formatter = DefaultFormatter(settings.quiet, settings.show_failed_logs)
        self._stream = sys.stdout if settings.stdout else sys.stderr
        self._console = ColorizingTextHandler(settings.nocolor, self._stream, formatter)
        own = self.settings
        self._plain = settings.dryrun or (isinstance(own, LogHandlerSettings) and own.verbose)
        self._progress: Progress | None = None
        self._display: Display | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, or what is said in its place."""
        if self._plain:
            self._console.emit(record)
            return
        lines = self._lines(record.__dict__)
        if lines is None and self._display is not None:
            # the display moves down for what is printed, and not for what is written to its stream
            lines = [self._console.format(record)]
        elif lines is None:
            self._console.emit(record)
        for line in lines or []:
            print(line, file=sys.stdout if self._stream is sys.stdout else sys.stderr, flush=True)

    def close(self) -> None:
        """Take the display off the screen."""
        if self._display is not None:
            self._display.stop()
            self._display = None
        super().close()

    def _lines(self, record: Mapping[str, Any]) -> list[str] | None:
        """Return the lines in place of a record, or None for the record itself."""
        event, now = record.get("event"), time.monotonic()
        if event == LogEvent.RUN_INFO:
            return self._begin(record["stats"], now)
        if str(record["msg"]).startswith("Nothing to be done"):
            return ["nothing to run: all results are there"]
        progress = self._progress
        if progress is not None and event == LogEvent.JOB_INFO and record["rule_name"] != "all":
            progress.start(record["jobid"], _running(record, now))
        elif progress is not None and event == LogEvent.JOB_FINISHED:
            return self._end(progress, record["job_id"], now)
        elif progress is not None and event == LogEvent.JOB_ERROR:
            return progress.fail(record["jobid"], now)
        elif record["levelno"] >= logging.WARNING and not any(
            words in str(record["msg"]) for words in _NEEDLESS
        ):
            return None
        return []

    def _begin(self, stats: Mapping[str, int], now: float) -> list[str]:
        planned = {rule: count for rule, count in stats.items() if rule not in ("total", "all")}
        self._progress = Progress(planned, earlier_seconds(Path("benchmarks")), now)
        if self._stream.isatty():
            self._display = Display(self._progress, self._stream)
            return []
        return [f"{self._progress.total} jobs to run"]

    def _end(self, progress: Progress, number: int, now: float) -> list[str]:
        if not progress.is_running(number):
            return []
        job = progress.running[number]
        line = progress.end(number, now)
        of_data = job.rule in ("prepare", "vary")
        warnings = warnings_in(job.log) if of_data and job.log is not None else []
        return [*([] if self._display is not None else [line]), *warnings]

    # what Snakemake asks of a plugin
    writes_to_stream = True
    writes_to_file = False
    has_filter = False
    has_formatter = True
    needs_rulegraph = False


def _running(record: Mapping[str, Any], now: float) -> Running:
    """Return the job that a record says has begun."""
    logs = [Path(path) for path in record["log"] if path.endswith(".log")]
    benchmark = record["benchmark"]
    return Running(
        record["rule_name"],
        record["rule_msg"],
        logs[0] if logs else None,
        now,
        Path(benchmark) if benchmark else None,
        None if record["local"] else time.time(),
    )
