"""A container engine, where one answers and has the images that a test needs."""

from __future__ import annotations

import functools
import subprocess

#: The base of the image, as in the Dockerfile.
BASE = "python:3.13-slim"


def docker(*arguments: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, check=False, timeout=timeout
    )


@functools.cache
def unavailable() -> str:
    """Why the image cannot be built; empty if it can."""
    try:
        if docker("info", timeout=30).returncode:
            return "no container engine answers"
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return "no container engine answers"
    present = docker("image", "inspect", BASE).returncode == 0
    if not present and docker("pull", "--quiet", BASE, timeout=120).returncode:
        return f"the image {BASE} cannot be pulled"
    return ""


def kind() -> str:
    why = unavailable()
    return f"none ({why}): the image is checked part by part" if why else "docker"
