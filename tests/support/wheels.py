"""Folders of wheels for builds that need no network: numpy as it is installed here, and small packages made by hand."""

from __future__ import annotations

import zipfile
from importlib import metadata
from pathlib import Path

WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def tiny(folder: Path, name: str, version: str, *, needs: str = "", content: str = "") -> Path:
    """A wheel with one module that knows its version."""
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {needs}"] if needs else []
    files = {
        f"{name}.py": content or f"version = {version!r}\n",
        f"{info}/METADATA": "\n".join(lines) + "\n",
        f"{info}/WHEEL": WHEEL,
    }
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)
        wheel.writestr(f"{info}/RECORD", "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"]))
    return path


def installed(folder: Path, name: str) -> Path:
    """The wheel of a package as it is installed here, for this Python."""
    package = metadata.distribution(name)
    tag = next(line[5:] for line in (package.read_text("WHEEL") or "").splitlines() if line.startswith("Tag: "))
    path = folder / f"{package.metadata['Name']}-{package.version}-{tag}.whl"
    record = f"{package.metadata['Name']}-{package.version}.dist-info/RECORD"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as wheel:
        names = [
            str(file)
            for file in package.files or []
            if not str(file).startswith("..") and file.suffix != ".pyc" and file.name != "RECORD"
        ]
        for file in names:
            wheel.write(Path(str(package.locate_file(file))), file)
        wheel.writestr(record, "".join(f"{file},,\n" for file in [*names, record]))
    return path
