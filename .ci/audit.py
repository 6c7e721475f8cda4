"""Known vulnerabilities among the installed packages, by pip-audit; says so where the advisories cannot be reached."""

import json
import subprocess
import sys


def main() -> int:
    """0: none known, or no advisories to be had here; 1: there are some, or pip-audit failed otherwise."""
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--skip-editable"]
    run = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
    try:
        found = json.loads(run.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (run.stderr.strip().splitlines() or ["pip-audit says nothing"])[-1]
        unreachable = "Connection" in run.stderr or "timed out" in run.stderr
        sys.stderr.write(f"{'no advisories can be reached' if unreachable else 'failed'}: {last}\n")
        return 0 if unreachable else 1
    audited = [one for one in found if "skip_reason" not in one]
    bad = [(one, each) for one in audited for each in one["vulns"]]
    for one, each in bad:
        mend = ", ".join(each["fix_versions"]) or "no release mends it"
        sys.stdout.write(f"{one['name']} {one['version']}: {each['id']}; mended in: {mend}\n")
    if not audited:
        sys.stderr.write("no advisories can be reached from here: NOTHING WAS AUDITED\n")
    else:
        sys.stderr.write(
            f"{len(audited)} of {len(found)} packages audited, {len(bad)} advisories\n"
        )
    return 1 if bad else 0


sys.exit(main())
