"""How it is deployed: the workflow of GitHub calls what the Makefile has, and gives no more than a job needs."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from samcli.cli.types import CfnParameterOverridesType
from samtranslator.yaml_helper import yaml_parse

from tests.template.conftest import PUBLIC, ROOT
from tidelog_sandbox.parameters import check

SAM = """#!/bin/sh
printf '%s\\n' "$@"
"""


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    """The workflow."""
    read = yaml.safe_load((ROOT / ".github/workflows/check.yaml").read_text(encoding="utf-8"))
    return {"on" if name is True else name: value for name, value in read.items()}  # to YAML 1.1 `on` is a truth


def test_linters_and_tests_are_those_of_the_makefile(workflow: dict[str, Any]) -> None:
    """All that `.ci/run` runs, and checkov."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    called = {step["run"] for step in steps if re.fullmatch(r"(make|sh) \S+", step.get("run", ""))}
    own = set(re.findall(r"^(?:make|sh) .+", (ROOT / ".ci/run").read_text(encoding="utf-8"), re.MULTILINE))
    assert called == own | {"make checkov"}
    targets = {each.removeprefix("make ") for each in called if each.startswith("make ")}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_what_others_have_written_is_named_by_commit(workflow: dict[str, Any]) -> None:
    """A tag can be moved, and these run where AWS lets the job in; SAM is the one of the tests."""
    used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert used
    assert [each for each in used if not re.fullmatch(r"(actions|aws-actions)/[\w-]+@[0-9a-f]{40}", each)] == []
    installed = [step["run"] for step in workflow["jobs"]["deploy"]["steps"] if "install" in step.get("run", "")]
    assert installed == ["python -m pip install --constraint constraints.txt aws-sam-cli"]


def test_only_the_deployment_gets_an_identity_and_it_needs_the_rest(workflow: dict[str, Any]) -> None:
    """By hand, from main, after lint and tests; with a role of AWS and no secret of GitHub's."""
    text = (ROOT / ".github/workflows/check.yaml").read_text(encoding="utf-8")
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets." not in text
    identified = [name for name, job in workflow["jobs"].items() if "id-token" in job.get("permissions", {})]
    assert identified == ["deploy"]
    deploy = workflow["jobs"]["deploy"]
    assert set(deploy["needs"]) == set(workflow["jobs"]) - {"deploy"}
    assert deploy["if"] == "github.event_name == 'workflow_dispatch' && github.ref == 'refs/heads/main'"
    [role] = [step["with"]["role-to-assume"] for step in deploy["steps"] if "role-to-assume" in step.get("with", {})]
    assert role.startswith("${{ vars.")
    environments = re.findall(r"^\[(\w+)\.deploy", (ROOT / "samconfig.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert workflow["on"]["workflow_dispatch"]["inputs"]["environment"]["options"] == environments


def overrides(given: list[str]) -> dict[str, str]:
    """Read parameters as SAM does."""
    read: dict[str, str] = CfnParameterOverridesType().convert(given, None, None)
    return read


def test_the_environments_are_deployed_as_they_are_written() -> None:
    """SAM cuts a value at its first space unless it has quotes of its own."""
    slots = yaml_parse((ROOT / "template.yaml").read_text(encoding="utf-8"))["Parameters"]
    config = tomllib.loads((ROOT / "samconfig.toml").read_text(encoding="utf-8"))
    schedules = {}
    for environment in ("dev", "prod"):
        given = overrides(config[environment]["deploy"]["parameters"]["parameter_overrides"])
        check(slots, PUBLIC | given)
        schedules[environment] = given["Schedule"]
    assert schedules == {"dev": "rate(15 minutes)", "prod": "rate(5 minutes)"}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            'DatabaseSecretArn=arn:aws:x Schedule="rate(15 minutes)" IncludeTables=*',
            {"DatabaseSecretArn": "arn:aws:x", "Schedule": "rate(15 minutes)", "IncludeTables": "*"},
        ),
        ("AdminEmail=$(touch pwned)`touch pwned`;touch", {"AdminEmail": "$(touch"}),
        ("", None),
    ],
)
def test_the_deployment_passes_on_what_its_variable_says(
    workflow: dict[str, Any], tmp_path: Path, said: str, expected: dict[str, str] | None
) -> None:
    """Whole, as one argument, and run as nothing; without it samconfig.toml is in force."""
    (tmp_path / "sam").write_text(SAM)
    (tmp_path / "sam").chmod(0o755)
    [step] = [step for step in workflow["jobs"]["deploy"]["steps"] if step.get("run", "").startswith("sam deploy")]
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ENVIRONMENT": "dev", "OVERRIDES": said}
    done = subprocess.run(["bash", "-euc", step["run"]], env=variables, cwd=tmp_path, capture_output=True, check=True)
    *arguments, last = done.stdout.decode().splitlines()
    assert arguments[:3] == ["deploy", "--config-env", "dev"]
    assert (overrides([last]) if arguments[-1] == "--parameter-overrides" else None) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["sam"]
