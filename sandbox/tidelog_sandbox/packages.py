"""What a function can import beside its own code and layers: as on Lambda, boto3 and the runtime, and no more."""

import importlib.metadata
import re
import tempfile
import venv
from functools import cache
from pathlib import Path

_RUNTIME = ("awslambdaric", "boto3")


_NAME = re.compile(r"^[\w.-]+", re.MULTILINE)

_kept: list["tempfile.TemporaryDirectory[str]"] = []


@cache
def interpreter(layers: tuple[Path, ...]) -> Path:
    """Return a Python that sees what the layers' requirements.txt name, and what the runtime brings.

    They are links to what is installed here, and last as long as this process. What else is installed is not there:
    a function that needs it fails, as it would on Lambda, and the others start faster.
    """
    lists = [layer / "requirements.txt" for layer in layers]
    packages = [name for each in lists if each.exists() for name in _NAME.findall(each.read_text(encoding="utf-8"))]
    _kept.append(tempfile.TemporaryDirectory(prefix="tidelog-python-"))
    root = Path(_kept[-1].name)
    venv.EnvBuilder(symlinks=True).create(root)
    [site] = root.glob("lib/python*/site-packages")
    linked: set[str] = set()
    for package in (*_RUNTIME, *packages):
        _link(package, site, linked)
    return root / "bin" / "python"


def _link(package: str, site: Path, linked: set[str]) -> None:
    """Link a distribution and what it needs into a folder, but for what only its extras need."""
    name = re.sub(r"[-_.]+", "-", package).lower()
    if name in linked:
        return
    linked.add(name)
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return  # it is for another version of Python
    for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
        (site / top).symlink_to(Path(str(found.locate_file(top))))
    for requirement in found.requires or ():
        required = _NAME.match(requirement)
        if required and "extra" not in requirement.partition(";")[2]:
            _link(required[0], site, linked)
