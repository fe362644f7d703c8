"""What `sam build` makes of shared/: a layer for Lambda's own interpreter, complete and small."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.tags import platform_tags
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "shared" / "requirements.txt"
LAMBDA = {"python_version": "3.13", "python_full_version": "3.13.0", "platform_machine": "aarch64", "extra": ""}
MEGABYTE = 10**6
ARM64 = 183  # e_machine, ELF for the Arm 64-bit Architecture
PIP = sys.executable if importlib.util.find_spec("pip") else "python3"  # an environment may have been made without pip

# What a licence is called in docs/dependencies.md, and a word by which packages declare it.
FAMILY = {
    "Apache-2.0": "Apache",
    "Apache-2.0 or BSD-3-Clause": "Dual License",
    "BSD-3-Clause": "BSD",
    "MIT": "MIT",
    "MIT-0": "MIT",
    "PSF-2.0": "PSF",
}

# Lambda's runtime brings boto3 and what only boto3 needs.
RUNTIME = ("boto3", "botocore", "s3transfer", "urllib3")

# Imports all of the library from the layer, then a function; nothing may come from anywhere but the three directories.
IMPORT = """
import importlib, pkgutil, sys, sysconfig
sys.path[:0] = sys.argv[1:]
import tidelog.pipeline
for module in pkgutil.walk_packages(tidelog.__path__, "tidelog."):
    importlib.import_module(module.name)
import app
assert callable(app.handler)
places = (*sys.argv[1:], sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
files = [module.__file__ for module in sys.modules.values() if getattr(module, "__file__", None)]
print(*[file for file in files if "site-packages" in file or not file.startswith(places)])
"""


def pins(path: Path) -> dict[str, str]:
    """Read the pinned versions of a requirements file."""
    text = re.sub(r" \\\n    --hash=sha256:[0-9a-f]{64}", "", path.read_text())
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    found = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines if line]
    assert all(found), f"{path.name} holds something else than pinned versions"
    return {canonicalize_name(pin[1]): pin[2] for pin in found if pin}


def direct() -> list[Requirement]:
    """Return the requirements that pyproject.toml says the layer carries: those between that comment and the next."""
    text = (ROOT / "pyproject.toml").read_text()
    block = re.search(r"# What the Lambda layer carries[^\n]*\n(.*?)#", text, re.DOTALL)
    assert block
    return [Requirement(line) for line in tomllib.loads(f"these = [{block[1]}]")["these"]]


def closure(requirements: list[Requirement]) -> set[str]:
    """Return the names of all that some requirements need on Lambda, by the metadata of what is installed here."""
    names: set[str] = set()
    open_ends = list(requirements)
    while open_ends:
        requirement = open_ends.pop()
        name = canonicalize_name(requirement.name)
        if name not in names and (requirement.marker is None or requirement.marker.evaluate(LAMBDA)):
            names.add(name)
            open_ends += [Requirement(line) for line in importlib.metadata.requires(name) or []]
    return names


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layer as it is deployed."""
    directory = tmp_path_factory.mktemp("build")
    sam = Path(sys.executable).with_name("sam")
    done = subprocess.run(
        [sam, "build", "--template", ROOT / "template.yaml", "--build-dir", directory / "stack", "--no-cached"],
        env={**os.environ, "SAM_CLI_TELEMETRY": "0", "AWS_DEFAULT_REGION": "eu-west-2", "PYTHON": PIP},
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory / "stack" / "Library"


@pytest.fixture(scope="module")
def built_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layer for this interpreter and platform, by the same rule."""
    directory = tmp_path_factory.mktemp("here")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    settings = {
        "ARTIFACTS_DIR": str(directory),
        "PYTHON": PIP,
        "LAYER_PYTHON": version,
        "LAYER_COMPILER": sys.executable,
        "LAYER_PLATFORM": " --platform ".join(platform_tags()),
    }
    done = subprocess.run(
        ["make", "build-Library", *(f"{name}={value}" for name, value in settings.items())],
        cwd=ROOT / "shared",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory / "python"


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Lambda's runtime brings, and nothing else of this environment."""
    directory = tmp_path_factory.mktemp("runtime")
    for name in RUNTIME:
        spec = importlib.util.find_spec(name)
        assert spec
        assert spec.origin
        (directory / name).symlink_to(Path(spec.origin).parent)
    return directory


def test_the_layer_pins_all_that_the_library_needs() -> None:
    """The four of pyproject.toml and what they need, at versions that pyproject.toml accepts, and nothing else."""
    pinned = pins(REQUIREMENTS)

    assert [canonicalize_name(one.name) for one in direct()] == list(pinned)[:4]
    assert all(one.specifier.contains(pinned[canonicalize_name(one.name)]) for one in direct())
    assert set(pinned) == closure(direct())


def test_the_layer_takes_the_wheels_it_knows_and_no_others(tmp_path: Path) -> None:
    """One whose hash is another is not installed, nor is one without a hash."""
    text, good = REQUIREMENTS.read_text(), "--hash=sha256:"
    assert text.count("==") == len(re.findall(r"== *[\w.]+ \\\n    --hash", text))
    shutil.copy(ROOT / "shared" / "Makefile", tmp_path)
    (tmp_path / "tidelog").mkdir()
    for changed, words in (
        (re.sub(f"{good}.", f"{good}0", text), "DO NOT MATCH THE HASHES"),
        (re.sub(rf" \\\n    {good}.*", "", text), "Hashes are required"),
    ):
        (tmp_path / "requirements.txt").write_text(changed)
        command = ["make", "build-Library", f"ARTIFACTS_DIR={tmp_path}/layer", f"PYTHON={PIP}"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert words in done.stderr
    assert not list((tmp_path / "layer").rglob("*.dist-info"))


def test_every_package_of_the_layer_is_listed_with_its_licence() -> None:
    """In docs/dependencies.md, at its version; each licence is one that asks for no more than to be named."""
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    listed = {
        canonicalize_name(name): (version, licence)
        for name, version, licence in re.findall(r"^\| `([\w.-]+)` \| ([\d.a-z]+) \| ([^|]+) \|", text, re.MULTILINE)
    }
    assert {name: version for name, (version, _) in listed.items()} == pins(REQUIREMENTS)
    for name, (_, licence) in listed.items():
        said = importlib.metadata.metadata(name)
        fields = ("License-Expression", "License", "Classifier")
        declared = " ".join(value for field in fields for value in said.get_all(field) or [])
        assert FAMILY[licence] in declared, (name, declared)


def test_the_layer_has_the_versions_that_the_tests_run_with() -> None:
    """requirements.txt, constraints.txt and this environment agree."""
    pinned, constrained = pins(REQUIREMENTS), pins(ROOT / "constraints.txt")

    assert pinned == {name: constrained.get(name) for name in pinned}
    assert pinned == {name: importlib.metadata.version(name) for name in pinned}


def test_the_build_holds_the_library_and_its_wheels(built: Path) -> None:
    """The library is there whole; of each requirement exactly the pinned version."""
    library = ROOT / "shared" / "tidelog"
    sources = {path.relative_to(library) for path in library.rglob("*") if path.suffix in (".py", ".typed", ".pem")}
    wheels = [path.name.removesuffix(".dist-info").split("-") for path in built.glob("python/*.dist-info")]

    copied = built / "python" / "tidelog"
    files = {path.relative_to(copied) for path in copied.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert files == sources
    assert {canonicalize_name(name): version for name, version in wheels} == pins(REQUIREMENTS)


def test_the_build_is_for_lambdas_interpreter_and_nothing_is_in_it_by_mistake(built: Path) -> None:
    """Compiled code is for CPython 3.13 on arm64; no tests; below 20 MB."""
    paths = [path.relative_to(built / "python") for path in built.rglob("*")]
    compiled = [path.name for path in paths if path.suffix in (".so", ".pyd", ".dylib")]

    assert compiled
    assert all(re.search(r"\.(cpython-313-aarch64-linux-gnu|abi3)\.so$", name) for name in compiled)
    heads = [path.read_bytes()[:20] for path in built.rglob("*") if path.is_file()]
    machines = {int.from_bytes(head[18:], "little") for head in heads if head.startswith(b"\x7fELF")}
    assert machines == {ARM64}  # whatever its name says
    assert {path.suffixes[0] for path in paths if path.suffix == ".pyc"} <= {".cpython-313"}  # where that is at hand
    assert not [path for path in paths if {"tests", "test", "bin"} & set(path.parts)]
    assert {path.parts[0] for path in (path.relative_to(built) for path in built.rglob("*"))} == {"python"}
    assert sum(path.stat().st_size for path in built.rglob("*") if path.is_file()) < 20 * MEGABYTE


def test_no_cold_start_compiles_the_layer(built_here: Path) -> None:
    """Every module lies there compiled by its Python, whatever becomes of the times of the files."""
    sources = [*built_here.rglob("*.py")]

    for path in sources:
        compiled = (path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc").read_bytes()
        assert compiled.startswith(importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little"))  # PEP 552: unchecked
    assert sources


@pytest.mark.parametrize("function", ["scheduler", "worker"])
def test_the_functions_start_with_nothing_but_the_layer_and_boto3(
    function: str, built_here: Path, runtime: Path
) -> None:
    """The layer, built for this interpreter, imports, all of it, and so does the function upon it."""
    places = [str(ROOT / "functions" / function), str(built_here), str(runtime)]

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-W", "error", "-c", IMPORT, *places],
        env={"AWS_DEFAULT_REGION": "eu-west-2"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert not done.stdout.strip()
