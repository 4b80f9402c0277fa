"""A logger plugin of Snakemake: a line for each job that starts or ends, with the time left.

Snakemake finds the plugin by the name of this package and expects the class `LogHandler` here; the
default profile asks for it. All other messages, those of dry runs and errors included, are
Snakemake's own.
"""

import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snakemake.logging import ColorizingTextHandler, DefaultFormatter
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from snakemake_logger_plugin_acll.progress import Progress, earlier_seconds

_SAID_HERE = {LogEvent.JOB_INFO, LogEvent.JOB_FINISHED, LogEvent.JOB_STARTED, LogEvent.PROGRESS}


class LogHandler(LogHandlerBase):
    """The plugin."""

    def __post_init__(self) -> None:
        settings = self.common_settings
        formatter = DefaultFormatter(settings.quiet, settings.show_failed_logs)
        stream = sys.stdout if settings.stdout else sys.stderr
        self._console = ColorizingTextHandler(settings.nocolor, stream, formatter)
        self._progress: Progress | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, or what is said in its place."""
        line = None if self.common_settings.dryrun else self._line(record.__dict__)
        if line:
            self._console.emit(_plain(line))
        elif line is None:
            self._console.emit(record)

    def _line(self, record: Mapping[str, Any]) -> str | None:
        """Return the line in place of a record: empty for nothing, None for the record itself."""
        event, now = record.get("event"), time.monotonic()
        if event == LogEvent.RUN_INFO:
            planned = {
                rule: count
                for rule, count in record["stats"].items()
                if rule not in ("total", "all")
            }
            self._progress = Progress(planned, earlier_seconds(Path("benchmarks")), now)
        if self._progress is None:
            return None
        if event == LogEvent.JOB_INFO and record["rule_name"] != "all":
            return self._progress.start(
                record["jobid"], record["rule_name"], record["rule_msg"], now
            )
        if event == LogEvent.JOB_FINISHED and self._progress.is_running(record["job_id"]):
            return self._progress.end(record["job_id"], now)
        needless = event in _SAID_HERE or str(record["msg"]).startswith("Select jobs")
        return "" if needless else None

    # what Snakemake asks of a plugin
    writes_to_stream = True
    writes_to_file = False
    has_filter = False
    has_formatter = True
    needs_rulegraph = False


def _plain(line: str) -> logging.LogRecord:
    return logging.LogRecord("snakemake", logging.INFO, "", 0, line, None, None)
