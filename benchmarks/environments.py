"""The peers' environments, each of its own under `.tidelog/peers`, made the first time in pinned versions."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.processes import ToolFailedError
from benchmarks.setting import ROOT, install, report

CHDB = "4.4.0"
CONNECTORX = "0.4.6"
DLT = "1.31.0"
DUCKDB = "1.5.5"
POLARS = "2.1.0"
PYARROW = "26.0.1"
SLING = "1.4.11"
"""The last one that a wheel carries the program of: those of later versions download it when they first run."""
TAP = "0.10.0"
TARGET = "0.1.4"
_ENVIRONMENTS = ROOT / ".tidelog" / "peers"
_REQUIREMENTS = {
    "chdb": (f"chdb=={CHDB}",),
    "connectorx": (f"connectorx=={CONNECTORX}", f"polars=={POLARS}", f"pyarrow=={PYARROW}"),
    "dlt": (
        *(f"dlt[sql-database]=={DLT}", "sqlalchemy==2.1.9", "psycopg2-binary==2.9.13"),
        *(f"pyarrow=={PYARROW}", f"connectorx=={CONNECTORX}"),
    ),
    "duckdb": (f"duckdb=={DUCKDB}", f"duckdb-extension-postgres-scanner=={DUCKDB}"),
    "sling": (f"sling-linux-amd64=={SLING}",),
    "tap-postgres": (f"meltanolabs-tap-postgres=={TAP}", "singer-sdk==0.54.9", "sqlalchemy==2.0.51"),
    "target-jsonl": (f"target-jsonl=={TARGET}",),
}


def environment_of(tool: str) -> Path:
    """Return the environment of a tool, made if it is not there in the versions that are asked for.

    Raises:
        ToolFailedError: it can't be installed.
    """
    environment, requirements = _ENVIRONMENTS / tool, _REQUIREMENTS[tool]
    stamp, wanted = environment / "installed", "\n".join(requirements)
    if not stamp.exists() or stamp.read_text() != wanted:
        report(f"installing {tool} …")
        try:
            install(environment, *requirements)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ToolFailedError(f"{tool} can't be installed: {error}") from error
        stamp.write_text(wanted)
    return environment


def python_of(tool: str) -> str:
    """Return the interpreter of a tool's environment."""
    return str(environment_of(tool) / "bin" / "python")
