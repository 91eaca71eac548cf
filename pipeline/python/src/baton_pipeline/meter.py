"""What a run costs."""

import os
import resource
import sys
import time


class Meter:
    """Measures from where it is made, or from the start of the process. CPU time and memory include ended children."""

    def __init__(self) -> None:
        self._wall = time.monotonic()
        self._cpu = _cpu_seconds()

    @classmethod
    def of_process(cls) -> "Meter":
        """Imports cost, too: a run pays for them."""
        meter = cls()
        meter._cpu = 0.0
        meter._wall -= _age_seconds()
        return meter

    def cost(self) -> dict[str, float]:
        """Seconds of CPU and of the clock, and the largest resident set of one process in MB (10**6 bytes)."""
        unit = 1 if sys.platform == "darwin" else 1024
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return {
            "cpu_s": round(_cpu_seconds() - self._cpu, 4),
            "wall_s": round(time.monotonic() - self._wall, 4),
            "max_rss_mb": round(peak * unit / 10**6, 4),
        }


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _age_seconds() -> float:
    """Field 22 of /proc/self/stat is the start in clock ticks since boot; 0 where there is no such file."""
    try:
        with open("/proc/self/stat", encoding="utf-8") as stat:
            # The second field is in brackets and may hold anything.
            started = int(stat.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, AttributeError, ValueError, IndexError):
        return 0.0
