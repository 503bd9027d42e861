"""Known weaknesses of the pinned packages, by pip-audit; where no service answers, that is said, and not a pass.

    python scripts/audit.py             # ends with 1 where a weakness is known
    python scripts/audit.py --required  # also where nothing was audited

The services are asked about one old, holed package first. One that knows of no hole in that (a mirror of PyPI that
leaves them out, say) would find none in anything.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PINS = Path(__file__).parents[1] / "constraints.txt"
HOLED = "jinja2==2.4.1"
SERVICES = ("pypi", "osv")
#: Seconds: for one answer of a service, and for all of them.
ANSWER, ALL = 10, 600


def ask(service: str, pins: Path) -> tuple[list[dict[str, Any]] | None, str]:
    """Each package with what is known of it; None where the service gives no answer, and then why."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(pins), "--no-deps", "--disable-pip", "-f", "json"]
    command += ["-s", service, "--timeout", str(ANSWER), "--progress-spinner", "off"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ALL)
    except subprocess.TimeoutExpired:
        return None, f"no answer in {ALL} seconds"
    try:
        return json.loads(done.stdout)["dependencies"], ""
    except (ValueError, KeyError):
        lines = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"]
        return None, lines[-1]


def holes(found: list[dict[str, Any]]) -> list[str]:
    """A line for each weakness."""
    return [
        f"{one['name']} {one['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no release'}"
        for one in found
        for hole in one.get("vulns", ())
    ]


def audit(pins: Path) -> tuple[int | None, str]:
    """By the first service that knows its matter.

    Returns:
        How many weaknesses; None where no service answers. And what to say.
    """
    reasons = []
    for service in SERVICES:
        with tempfile.TemporaryDirectory() as folder:
            control = Path(folder) / "holed.txt"
            control.write_text(f"{HOLED}\n", encoding="utf-8")
            found, reason = ask(service, control)
        if found is not None and not holes(found):
            skipped = found[0].get("skip_reason") if found else None
            found, reason = None, skipped or f"it knows of no weakness in {HOLED}"
        if found is not None:
            found, reason = ask(service, pins)
        if found is None:
            reasons.append(f"{service}: {reason}")
            continue
        skipped = [one["name"] for one in found if "skip_reason" in one]
        lines = [*holes(found), *(f"{name}: not known to {service}" for name in skipped)]
        return len(holes(found)), "\n".join([*lines, f"audited by {service}: {len(found)} packages"])
    return None, f"not audited: no answer ({'; '.join(reasons)})"


def main(arguments: list[str]) -> int:
    count, said = audit(PINS)
    print(said)
    if count is None:
        return 1 if "--required" in arguments else 0
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
