"""The command itself, whatever the environment that it is called in."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.stack.command import TIDELOG, environment


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, whose output nobody reads on a terminal."""
    return subprocess.run(
        [TIDELOG, *command], env=environment(**variables), capture_output=True, text=True, timeout=60, check=False
    )


def test_what_the_screen_has_no_sign_for_is_spelt_out(tmp_path: Path) -> None:
    """A locale without UTF-8 is no reason to fail."""
    document = tmp_path / "tidelog.toml"
    document.write_text('include = ["sales.żółw"]', encoding="utf-8")
    done = run("config", "check", str(document), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"sales.\u017c\xf3\u0142w" in done.stdout


def test_an_endpoint_that_is_no_url_is_told_in_a_line() -> None:
    """Botocore's own error has no operation and no remedy, and names no variable."""
    done = run("status", "--stack", "any", AWS_ENDPOINT_URL="localhost", AWS_DEFAULT_REGION="eu-west-1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "tidelog: call cloudformation: Invalid endpoint: localhost. "
        "Set AWS_ENDPOINT_URL to a URL such as http://127.0.0.1:4566, or to nothing for AWS itself\n"
    )


def test_options_that_a_stack_does_not_heed_are_refused() -> None:
    """They would be taken for what the table shows."""
    done = run("tables", "--stack", "any", "--exclude", "public.*", "--chunk-megabytes", "8", COLUMNS="200")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Invalid value for --exclude, --chunk-megabytes: it goes with --database" in done.stderr
