"""What the figures were measured on."""

import os
import platform
import sqlite3
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter

import msgspec

_SYNCS = 50


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """The machine, its software, and how long the folder's disk takes for one synced write of 4 kB."""

    cpu: str
    cores: int
    system: str
    python: str
    sqlite: str
    packages: dict[str, str]
    filesystem: str
    synced_write_s: float
    load: float


def host(folder: Path) -> Host:
    """Find out about this machine and the disk that ``folder`` is on."""
    return Host(
        cpu=_cpu(),
        cores=os.cpu_count() or 0,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=sys.version.split()[0],
        sqlite=sqlite3.sqlite_version,
        packages={name: version(name) for name in ("eventsourcing", "msgspec", "pydantic")},
        filesystem=_filesystem(folder),
        synced_write_s=_synced_write_s(folder),
        load=os.getloadavg()[0],
    )


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def _filesystem(folder: Path) -> str:
    """Return the type of the file system that is mounted nearest above ``folder``."""
    mounts = Path("/proc/mounts")
    lines = mounts.read_text(encoding="utf-8").splitlines() if mounts.exists() else []
    points = {line.split()[1]: line.split()[2] for line in lines}
    above = (str(place) for place in (folder.resolve(), *folder.resolve().parents))
    return next((points[place] for place in above if place in points), "unknown")


def _synced_write_s(folder: Path) -> float:
    times: list[float] = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(_SYNCS):
            file.write(bytes(4096))
            began = perf_counter()
            os.fdatasync(file.fileno()) if hasattr(os, "fdatasync") else os.fsync(file.fileno())
            times.append(perf_counter() - began)
    return median(times)
