"""Has pip-audit look at lock files: `vulnerabilities.py LOCK …`. Run by script/audit.

The status is 1 where something of them has a known vulnerability, else 0: also where the service
that knows them is out of reach, which is nothing that a change could mend.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

PATIENCE_S: Final = 300


def main(locks: list[str]) -> int:
    found = {line for lock in locks for line in vulnerabilities(Path(lock))}
    for line in sorted(found):
        print(line, file=sys.stderr)
    return 1 if found else 0


def vulnerabilities(lock: Path) -> list[str]:
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--require-hashes"]
    options = ["--disable-pip", "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(
            [*command, *options], capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        print(f"{lock.name}: the service that knows vulnerabilities does not answer")
        return []
    except ValueError:  # no answer
        said = done.stderr.strip().rpartition("\n")[2]
        print(f"{lock.name}: the service that knows vulnerabilities cannot be asked: {said}")
        return []
    known: list[dict[str, Any]] = answer["dependencies"]
    unknown = [each["name"] for each in known if "skip_reason" in each]
    print(f"{lock.name}: {len(known) - len(unknown)} of {len(known)} libraries were looked at")
    return [
        f"{lock.name}: {each['name']} {each['version']} has {flaw['id']}"
        f" (mended in {', '.join(flaw['fix_versions']) or 'no version'})"
        for each in known
        for flaw in each.get("vulns", ())
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))  # noqa: TID251 (the one place that ends the process)
