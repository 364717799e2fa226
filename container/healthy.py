#!/usr/bin/env python3
"""The health check of the container: exit 0 if `pgbronze status` finds nothing wrong, else 1.

Unhealthy: before the first snapshot, if changes cannot continue from the checkpoint, and if a table
must be read again. The line that is printed shows in `docker inspect`.
"""

import json
import subprocess
import sys


def main() -> int:
    done = subprocess.run(
        ["pgbronze", "status", "--json"], check=False, capture_output=True, text=True
    )
    if done.returncode:
        print(done.stderr.strip().rpartition("\n")[2])
        return 1
    status = json.loads(done.stdout)
    waiting = [t["table"] for t in status["tables"] if t["state"] == "needs snapshot"]
    if status["checkpoint"] is None:
        trouble = "no snapshot was taken yet"
    elif status["problem"]:
        trouble = status["problem"]
    elif waiting:
        trouble = f"tables need a snapshot: {', '.join(waiting)}"
    else:
        print(f"checkpoint {status['checkpoint']['lsn']}, lag {status['lag']['bytes']} bytes")
        return 0
    print(trouble)
    return 1


if __name__ == "__main__":
    sys.exit(main())
