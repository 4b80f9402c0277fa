"""How the wheel gets what a run needs besides Python code: `make wheel`."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# below the repository → below acll/workflow/, where acll.sharing.place looks
_WORKFLOW = {
    "Snakefile": "Snakefile",
    "workflow/rules": "workflow/rules",
    "profiles": "profiles",
}


class WorkflowHook(BuildHookInterface[Any]):
    """Put the workflow into the wheel; an editable installation uses that of the repository."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files. version: `standard` or `editable`."""
        if version == "standard":
            for path, place in _WORKFLOW.items():
                build_data["force_include"][path] = f"acll/workflow/{place}"
