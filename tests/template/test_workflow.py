"""The workflow of GitHub: it calls what the Makefile has, and gives no more than a job needs."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.template.conftest import ROOT


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    """The workflow."""
    read = yaml.safe_load((ROOT / ".github/workflows/check.yaml").read_text(encoding="utf-8"))
    return {"on" if name is True else name: value for name, value in read.items()}  # to YAML 1.1 `on` is a truth


def test_linters_and_tests_are_those_of_the_makefile(workflow: dict[str, Any]) -> None:
    """All that `.ci/run` runs, and checkov."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    called = {
        found[1]
        for job in workflow["jobs"].values()
        for step in job["steps"]
        if (found := re.fullmatch(r"make (\w+)", step.get("run", "")))
    }
    own = set(re.findall(r"^make (\w+)", (ROOT / ".ci/run").read_text(encoding="utf-8"), re.MULTILINE))
    assert called == own | {"checkov"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in called)


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
