"""Runs whole processes and says what they took."""

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field

SECOND = 1e9


@dataclass(frozen=True)
class Job:
    """A program to run. `durable`: what it wrote is on disk when it ends, so
    that no `sync` has to follow."""

    words: list
    environment: dict = field(default_factory=dict)
    cwd: str = "/"
    durable: bool = True


@dataclass(frozen=True)
class Sample:
    """What one run took, in seconds."""

    wall: float
    cpu: float
    server_cpu: float
    # Only where it was asked for: MiB that the largest process had resident.
    peak: float = 0


class Failed(Exception):
    """A program ended with another status than 0."""


def run(job, log, servers=(), memory=False):
    """Runs a job to its end. CPU is that of the process and all it waited for;
    that of the servers is counted apart."""
    words = _timed(job, log) if memory else job.words
    before = cpu_of(servers)
    start = time.perf_counter_ns()
    cpu = _wait(words, job, log)
    if not job.durable:
        cpu += _wait(["sync"], job, log)
    wall = time.perf_counter_ns() - start
    return Sample(wall / SECOND, cpu, cpu_of(servers) - before, _peak(log) if memory else 0)


def _wait(words, job, log):
    with open(log, "ab") as out:
        process = subprocess.Popen(
            words,
            cwd=job.cwd,
            env={**os.environ, **job.environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise Failed(f"status {process.returncode} of: {' '.join(words)}\n{tail(log)}")
    return usage.ru_utime + usage.ru_stime


def peak_memory(job, log):
    """Most resident memory of a job's largest process, in MiB."""
    _wait(_timed(job, log), job, log)
    return _peak(log)


def _timed(job, log):
    """Memory is asked of time(1): a child of this program would begin with this
    program's own peak."""
    return ["/usr/bin/time", "-q", "-f", "%M", "-o", f"{log}.peak", *job.words]


def _peak(log):
    with open(f"{log}.peak", encoding="ascii") as file:
        return int(file.read().split()[-1]) / 1024


def cpu_of(pids):
    """CPU seconds so far of living processes, each with all its threads, and of
    the children that they waited for."""
    return sum(_cpu_clock(pid) + _waited_for(pid) for pid in pids)


def _cpu_clock(pid):
    # clock_getcpuclockid(3), as the kernel encodes it: it has nanoseconds where
    # /proc has hundredths of a second.
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def _waited_for(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def median(values):
    return statistics.median(values)


def tail(log, lines=15):
    with open(log, encoding="utf-8", errors="replace") as file:
        return "".join(file.readlines()[-lines:])


def say(text):
    print(text, file=sys.stderr, flush=True)


def settle():
    """What earlier runs left in memory is on disk before the next one starts."""
    os.sync()
