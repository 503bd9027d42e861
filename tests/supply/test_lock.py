"""The lock file is of today's pyproject.toml and constraints.txt, and holds every package that they bring, with hashes.

Nothing is asked here: what packages need is read from what is installed.
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = ("build", "dev", "supply", "torch")
#: Comes as another build, with other packages of its own, on each kind of machine.
BY_VERSION = {"torch"}
#: Comes with the environment, and installs the rest.
INSTALLER = {"pip"}


def locked(name: str) -> dict[str, tuple[Requirement, list[str]]]:
    """Each requirement of a lock file, and its hashes."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            requirement = Requirement(line.partition(" --hash=")[0])
            found[canonicalize_name(requirement.name)] = requirement, re.findall(r"--hash=sha256:([0-9a-f]{64})", line)
    return found


def version_of(requirement: Requirement) -> Version:
    [pin] = requirement.specifier
    assert pin.operator == "=="
    return Version(pin.version)


@pytest.fixture(scope="module")
def constraints() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): version_of(pin) for pin in pins}


@pytest.fixture(scope="module")
def project() -> dict[str, list[str]]:
    """What pyproject.toml asks for, by extra; the base under an empty name."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": content["dependencies"], **content["optional-dependencies"]}


@pytest.mark.parametrize("name", LOCKS)
def test_everything_has_hashes(name: str) -> None:
    found = locked(name)
    assert found
    assert [package for package, (_, hashes) in found.items() if not hashes] == []


def test_what_is_built_is_built_by_the_locked_tool() -> None:
    assert locked("build")["setuptools"] == locked("dev")["setuptools"]


def test_torch_is_the_tested_one_and_shares_what_it_shares(constraints: dict[str, Version]) -> None:
    found, others = locked("torch"), locked("dev")
    assert version_of(found["torch"][0]) == constraints["torch"]
    assert {name: one for name, one in found.items() if name in others and one[1] != others[name][1]} == {}


def test_versions_are_those_of_the_constraints(constraints: dict[str, Version]) -> None:
    found = locked("dev")
    assert set(constraints) - set(found) == BY_VERSION
    for name, (requirement, _) in found.items():
        if name in constraints:
            assert version_of(requirement) == constraints[name], name
        else:  # another system's
            assert requirement.marker is not None, f"{name} is not in constraints.txt"
            assert not requirement.marker.evaluate(), f"{name} is not in constraints.txt"


def test_they_are_what_the_project_asks_for(project: dict[str, list[str]], constraints: dict[str, Version]) -> None:
    versions = {name: version_of(requirement) for name, (requirement, _) in locked("dev").items()}
    versions |= {name: constraints[name] for name in BY_VERSION}
    asked = [Requirement(text) for texts in project.values() for text in texts]
    for requirement in asked:
        if requirement.name not in INSTALLER | {"equipoise"}:
            assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


def test_nothing_that_these_packages_need_is_left_out(project: dict[str, list[str]]) -> None:
    """They are installed without looking for what they need."""
    found = set(locked("dev")) | BY_VERSION | INSTALLER
    left = [Requirement(text) for texts in project.values() for text in texts]
    seen: set[tuple[str, str]] = set()
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        if name == "equipoise":
            continue
        assert name in found, f"{requirement} is not in requirements/dev.lock"
        if name in BY_VERSION | INSTALLER:
            continue
        try:
            needs = requires(name) or []
        except PackageNotFoundError:
            pytest.fail(f"{name} is not installed: the tests need equipoise[dev]")
        for extra in ("", *requirement.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                below = [Requirement(text) for text in needs]
                left += [one for one in below if one.marker is None or one.marker.evaluate({"extra": extra})]
