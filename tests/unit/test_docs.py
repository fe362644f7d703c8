"""The documents say what the code does."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

import tidelog
from tidelog import configuration, messages, verification
from tidelog_cli.main import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
LIBRARY = sorted((ROOT / "shared" / "tidelog").rglob("[a-z]*.py"))
OUTWARD = {
    "scheduling", "ingesting", "extraction", "pipeline", "source", "opening", "connection", "segment", "publishing",
    "ledger", "objects", "parameters", "marks", "queues", "deadletters", "notices", "credentials", "failures",
    "working", "configurations", "watching", "backfilling", "chunking", "sweeping", "dispatch", "parts", "requesting",
    "altering", "history", "stores", "surveying", "rebuilding", "ticks", "verifying", "auditing", "playback",
    "spooling", "matching", "comparing", "workbench", "read", "stored", "idling", "memory", "refusals", "clients",
    "scheduler", "timelines",
}  # fmt: skip


class _Loader(yaml.SafeLoader):
    """Reads a template without caring for its functions."""


_Loader.add_multi_constructor("!", lambda *_: None)


def test_every_parameter_of_the_template_is_listed() -> None:
    """Name, default and description."""
    template: Any = yaml.load((ROOT / "template.yaml").read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    listed = re.findall(r"^\| `([A-Z]\w+)` \| (.+?) \| (.+) \|$", CONFIGURATION, re.MULTILINE)
    expected = [
        (name, _default(parameter.get("Default")), parameter["Description"])
        for name, parameter in template["Parameters"].items()
    ]
    assert listed == expected


def _default(value: Any) -> str:
    if value is None:
        return "required"
    return f"`{value}`" if value != "" else "empty"


def test_the_readme_lists_every_command_and_no_other() -> None:
    """What `tidelog --help` leads to."""
    root: Any = typer.main.get_command(app)
    commands = {
        f"tidelog {name}{f' {inner}' if inner else ''}"
        for name, command in root.loaded().items()
        for inner in [
            "" if each.hidden else inner  # a hidden one is what the group itself does
            for inner, each in (getattr(command, "commands", None) or {"": command}).items()
        ]
    }
    table = README.split("## The command line")[1].split("##")[0]
    assert {
        " ".join(re.findall(r"[a-z-]+", text.split(" --")[0]))
        for text in re.findall(r"^\| `(.+?)`", table, re.MULTILINE)
    } == commands


def test_every_command_that_ends_can_answer_in_json() -> None:
    """All but the demo, and what goes on until it is interrupted."""
    root: Any = typer.main.get_command(app)
    without = {
        f"{name} {inner}".strip()
        for name, command in root.loaded().items()
        for inner, each in (getattr(command, "commands", None) or {"": command}).items()
        if not any("--json" in option.opts for option in each.params)
    }
    assert without == {"demo", "local up"}


def test_the_configurations_keys_are_listed_with_their_values() -> None:
    """As the errors put them; and the document that is shown says something of each."""
    listed = re.findall(r"^\| `([a-z]\w+)` \| (.+?) \| .+ \|$", CONFIGURATION, re.MULTILINE)
    assert listed == [(name, key.value) for name, key in (configuration.KEYS | configuration.TABLE_KEYS).items()]
    [shown], [in_readme] = (re.findall(r"```toml\n(.+?)```", text, re.DOTALL) for text in (CONFIGURATION, README))
    entries = configuration.Configuration.parse(shown).entries()
    assert {key for _, key, _ in entries} == {name for name, _ in listed}
    assert configuration.Configuration.parse(in_readme)


def test_the_messages_that_the_readme_sends_by_hand_are_such() -> None:
    """They are copied as they stand; tests/stack/test_backfill.py sends them."""
    ingest, backfill = (messages.decode(body) for body in re.findall(r"--message-body '(.+)'", README))
    assert isinstance(ingest, messages.Ingest)
    assert isinstance(backfill, messages.Backfill)


def test_the_runbook_lists_every_alarm_and_every_metric() -> None:
    """By the names that emails and dashboards show."""
    template: Any = yaml.load((ROOT / "template.yaml").read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    text = (ROOT / "template.yaml").read_text(encoding="utf-8")
    alarms = set(re.findall(r"AlarmName: !Sub \${AWS::StackName}-(.+)", text))
    assert len(alarms) == sum(one["Type"] == "AWS::CloudWatch::Alarm" for one in template["Resources"].values())
    assert set(re.findall(r"^\| `<stack>-(.+?)` \|", RUNBOOK, re.MULTILINE)) == alarms
    emitted = {
        name
        for path in (ROOT / "functions").rglob("app.py")
        for name in re.findall(r'\("(\w+)", MetricUnit', path.read_text(encoding="utf-8"))
    }
    metrics = RUNBOOK.split("## What is measured")[1]
    assert {
        name for row in re.findall(r"^\| (`.+?) \|", metrics, re.MULTILINE) for name in row.strip("`").split("`, `")
    } == (emitted)


def test_the_runbook_lists_every_saved_query_and_names_no_other() -> None:
    """Where it says what to look at, it is by the names that the console shows."""
    text = (ROOT / "template.yaml").read_text(encoding="utf-8")
    saved = set(re.findall(r"Name: !Sub \${AWS::StackName}/(.+)", text))
    table = RUNBOOK.split("## The dashboard and the saved queries")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)) == saved
    alarms = RUNBOOK.split("## The alarms")[1].split("\n## ")[0]
    named = re.findall(r"query `(.+?)`", alarms)
    assert set(named) <= saved
    assert len(named) >= 7


@pytest.mark.parametrize("module", [path.stem for path in LIBRARY])
def test_the_architecture_and_the_package_name_every_module(module: str) -> None:
    """A reader finds each one."""
    assert f"`{module}`" in ARCHITECTURE.split("## The modules")[1]
    assert f"`{module}`" in f"{tidelog.__doc__} {verification.__doc__}"


@pytest.mark.parametrize("path", [path for path in LIBRARY if path.stem not in OUTWARD], ids=lambda path: path.stem)
def test_a_pure_module_imports_nothing_that_touches_the_world(path: Path) -> None:
    """Neither boto3 nor pg8000, nor a module that does."""
    imported = {
        name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    mine = {name.rpartition(".")[2] for name in imported if name.split(".")[0] == "tidelog"}
    assert not mine & OUTWARD
    assert not {name.split(".")[0] for name in imported} & {"boto3", "botocore", "pg8000"}


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_a_module_stays_small(path: Path) -> None:
    """One noun, about 300 lines."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 330
