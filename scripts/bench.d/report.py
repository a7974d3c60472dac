"""What was measured, as a table, with what somebody needs who doubts it."""

import os
import platform
import subprocess
import tempfile
import time

from operations import BARS, MOST_MEMORY

# Closer to a bar than this is noise.
NOISE = 0.10
OURS, PEER = "walpoint", "pgBackRest"
TITLES = {
    "push": "push one 16 MiB segment",
    "get": "get one segment",
    "backup": "full backup",
    "restore": "restore of it",
}
PLACES = {"directory": "a directory", "s3": "Garage"}


def verdict(ratio, bar):
    """Whether a share of the peer's time reaches its bar."""
    if abs(ratio - bar) <= bar * NOISE:
        return "within noise"
    return "reached" if ratio < bar else "missed"


def table(rows):
    """One section for each operation and store."""
    parts = []
    for (operation, store), group in groups(rows).items():
        peer = next((row for row in group if row.program == PEER), None)
        runs = len(group[0].samples)
        parts.append(f"### {TITLES[operation]}, {PLACES[store]} (median of {runs})\n\n")
        parts.append("| | wall | from–to | CPU | CPU of the servers | wall, of pgBackRest's | CPU, of pgBackRest's |\n")
        parts.append("|---|---:|---:|---:|---:|---:|---:|\n")
        parts.extend(_line(row, peer) for row in group)
        parts.append("\n")
        if peer:
            parts.append(_judgement(operation, store, group, peer))
    return "".join(parts)


def groups(rows):
    """Rows of one operation on one store."""
    found = {}
    for row in rows:
        found.setdefault((row.operation, row.store), []).append(row)
    return found


def _line(row, peer):
    walls = [sample.wall for sample in row.samples]
    shares = [f"{row.of(what) / peer.of(what):.2f}" if peer else "" for what in ("wall", "cpu")]
    return (
        f"| {row.program} | {duration(row.of('wall'))} | {duration(min(walls))}–{duration(max(walls))} "
        f"| {duration(row.of('cpu'))} | {duration(row.of('server_cpu'))} | {shares[0]} | {shares[1]} |\n"
    )


def _judgement(operation, store, group, peer):
    lines = []
    bar = BARS[operation, store]
    ours = next(row for row in group if row.program == OURS)
    for what, word in (("wall", "wall time"), ("cpu", "CPU time")):
        ratio = ours.of(what) / peer.of(what)
        lines.append(f"- {word} {ratio:.2f} of pgBackRest's, to reach {bar}: **{verdict(ratio, bar)}**\n")
    rus = next((row for row in group if row.program == "wal-rus"), None)
    if rus and operation == "backup":
        ratio = ours.of("wall") / rus.of("wall")
        lines.append(f"- wall time {ratio:.2f} of wal-rus's, to reach 1.0: **{verdict(ratio, 1.0)}**\n")
    most = MOST_MEMORY[operation]
    lines.append(f"- memory {ours.peak:.0f} MiB at most, to reach {most} MiB: **{verdict(ours.peak, most)}**\n")
    if ours.requests:
        counted = ", ".join(f"{count} {name}" for name, count in sorted(ours.requests.items()) if count)
        lines.append(f"- requests: {sum(ours.requests.values())} ({counted})\n")
    return "".join(lines) + "\n"


def duration(seconds):
    """For people."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def machine(home):
    """What the figures depend on."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = {line.split(":")[1].strip() for line in file if line.startswith("model name")}
    with open("/proc/meminfo", encoding="utf-8") as file:
        memory = int(file.readline().split()[1]) / (1 << 20)
    words = ["findmnt", "-n", "-o", "FSTYPE,OPTIONS", "-T", home]
    disk = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    return (
        f"- {os.cpu_count()} × {', '.join(sorted(models))}, {memory:.0f} GiB of memory, Linux {platform.release()}\n"
        f"- file system: {' '.join(disk.split())}; writing 8 KiB with fsync: {_fsync(home) * 1000:.1f} ms (median of 50)\n"
    )


def _fsync(home):
    took = []
    with tempfile.TemporaryFile(dir=home) as file:
        for _ in range(50):
            start = time.perf_counter()
            file.write(bytes(8192))
            file.flush()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - start)
    return sorted(took)[len(took) // 2]


def cluster(scale, size):
    """What was archived, in a line."""
    return (
        f"- the cluster: pgbench scale {scale}, {size / 1e9:.2f} GB without WAL, data checksums on; "
        "WAL of pgbench's own transactions\n"
    )


def document(table, stage):
    """The whole page."""
    return (
        "# Speed and memory\n\n"
        "Written by `scripts/bench`, which anybody can run: it installs what is missing, measures whole processes "
        "in turn with the peer, and prints what follows. Every run is preceded by `sync`; the first of each is not "
        "counted. CPU is user and system time of a process and of all it started; that of the servers (Garage and "
        "the TLS in front of it, for backups PostgreSQL's too) stands apart. A program that does not fsync is "
        "followed by `sync` within its time. Memory is the most that a process had resident. A ratio within 10 % "
        "of its bar is called noise.\n\n"
        "pgBackRest speaks S3 over TLS only, so it goes through stunnel; \"walpoint, over TLS\" is walpoint the "
        "same way. Bars are held against walpoint as it is used with Garage, without TLS.\n\n"
        f"## The machine\n\n{stage['machine']}"
        f"- load before {stage['load_before']}, after {stage['load_after']}; {stage['when']}\n"
        f"{stage['cluster']}"
        "- zstd level 1 (wal-rus: its own default); pgBackRest with `process-max=2`; Garage with fsync, on the same cores\n"
        f"- {'; '.join(stage['versions'])}; walpoint of commit {stage['commit']}\n"
        f"- wal-rus: {stage['wal_rus']}\n\n"
        f"Repeat it with `{stage['command']}`.\n\n{table}"
    ).rstrip() + "\n"
