"""What crossed the wire, from FLARE's own log."""

import re
from pathlib import Path


def wire_bytes(workspace: Path, direction: str) -> list[int]:
    """Sizes of all tensor transfers that FLARE's own log shows, "up" to the server or "down" from it."""
    pattern = {"up": r"\[client\] download ref=", "down": r"\[server\] download tx"}[direction]
    lines = (workspace / "server" / "log.txt").read_text().splitlines()
    return [
        int(re.search(r"\(([\d,]+) bytes\)", line)[1].replace(",", "")) for line in lines if re.search(pattern, line)
    ]
