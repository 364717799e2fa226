"""pgoutput-decoder: an object a message, counted and thrown away.

Run by the interpreter of its own environment with one argument, a JSON object: `reader` (what its
reader takes), `rows` (how many messages end it). The last line printed is the count.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import pgoutput_decoder


async def main(task: dict[str, Any]) -> None:
    reader = pgoutput_decoder.LogicalReplicationReader(**task["reader"])
    seen = 0
    async for _ in reader:
        seen += 1
        if seen >= task["rows"]:
            break
    print(seen, flush=True)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
