"""What the nights of a large cluster came to, as tables with verdicts."""

import os
import time

import report
from measure import median
from nightly import BY_BLOCK, BY_FILE, CHANGED
from report import OURS, PLACES, duration, verdict

TITLES = {
    "backup": "full backup",
    "incremental": f"incremental backup, {CHANGED:.0%} of the pages changed",
    "restore": "restore of the last incremental backup",
    "delta": f"delta restore, {CHANGED:.0%} of the restored pages changed",
    "verify": "verify",
}
# To reach, as shares of pgBackRest's; what is not here has no bar.
BARS = {("backup", "wall"): 0.4, ("restore", "wall"): 0.4, ("incremental", "wall"): 0.4, ("incremental", "stored"): 0.6}
# And of wal-rus's wall time.
NO_SLOWER = ("backup", "restore")
# What cannot be done faster here, by whoever does it.
LIMITS = {"backup": "cat, zstd -1 -T2", "restore": "cp, fsync"}
MOST_MEMORY = 256
WORDS = {"wall": "wall time", "cpu": "CPU time", "peak": "memory", "stored": "stored bytes"}


def section(rows, left_out, stage):
    """All of it, with what it was measured on."""
    parts = [_introduction(rows, stage)]
    for (operation, store), group in report.groups(rows).items():
        peer = _peer(group)
        share = f"of {peer.program}'s" if peer else "of a peer's"
        what = "archive" if operation == "verify" else "stored"
        parts.append(f"### {TITLES[operation]}, {PLACES[store]} (median of {len(group[0].samples)})\n\n")
        parts.append(f"| | wall | from–to | CPU | CPU of the servers | memory | {what} | wall, {share} | CPU | memory | {what} |\n")
        parts.append("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
        parts.extend(_line(row, peer) for row in group)
        parts.append("\n")
        parts.extend(_judgements(operation, group))
        parts.extend(f"- without {one.program}: {_in_short(one.why)}\n" for one in left_out if (one.operation, one.store) == (operation, store))
        parts.append("\n")
    return "".join(parts)


def _introduction(rows, stage):
    blocks = (
        f"\"{BY_BLOCK}\" has `repo-bundle` and `repo-block` on (in 2.45 blocks are a beta that says \"do not use in production\"; "
        f"2.46 is the first that does not), \"{BY_FILE}\" `repo-bundle` alone. "
        if any(row.program == BY_BLOCK for row in rows)
        else "pgBackRest has `repo-bundle` on and stores whole files: block incremental backups are not in this version or failed. "
    )
    return (
        f"## A large cluster's nights\n\n"
        f"pgbench scale {stage['scale']} with fill factor {stage['fillfactor']}, {stage['bytes'] / 1e9:.2f} GB without WAL. "
        f"Before each incremental backup one row is updated on {CHANGED:.0%} of the accounts' pages, at random, and written by a checkpoint; "
        f"at the last one {stage['changed']:.2%} of all pages were new. Each builds on the one before, and each program's archive has all WAL. Every restore is compared with the original, "
        "byte by byte in pgbench's tables and indexes, and in the first round a server recovers on it and sums up the table. "
        f"For a delta restore 64 bytes in {CHANGED:.0%} of the pages of a fresh restore are overwritten. `verify` reads the whole "
        "archive, of which pgBackRest's is as large as the table says. "
        f"{blocks}"
        "\"cp, fsync\" and \"cat, zstd\" are the limits: the disk's, and that of compressing on both processors. "
        "Memory is that of the largest process, the most of all runs; stored are the bytes that a run added to the backups, WAL apart. "
        f"Writing 1 GiB with fsync: {stage['disk']:.0f} MB/s.\n\n"
    )


def _peer(group):
    by_name = {row.program: row for row in group}
    return by_name.get(BY_BLOCK) or by_name.get(BY_FILE)


def _of(row, what):
    if what == "stored":
        return median(row.stored)
    return row.peak if what == "peak" else row.of(what)


def _line(row, peer):
    walls = [sample.wall for sample in row.samples]
    shares = [f"{_of(row, what) / _of(peer, what):.2f}" if peer and _of(row, what) and _of(peer, what) else "" for what in WORDS]
    stored = f"{median(row.stored) / 1e6:.1f} MB" if median(row.stored) else ""
    return (
        f"| {row.program} | {duration(row.of('wall'))} | {duration(min(walls))}–{duration(max(walls))} | {duration(row.of('cpu'))} "
        f"| {duration(row.of('server_cpu'))} | {row.peak:.0f} MiB | {stored} | {' | '.join(shares)} |\n"
    )


def _judgements(operation, group):
    by_name = {row.program: row for row in group}
    ours = by_name[OURS]
    for what, word in WORDS.items():
        bar = BARS.get((operation, what))
        for name in (BY_BLOCK, BY_FILE):
            if bar and name in by_name:
                ratio = _of(ours, what) / _of(by_name[name], what)
                yield f"- {word} {ratio:.2f} of {name}'s, to reach {bar}: **{verdict(ratio, bar)}**\n"
    if operation in NO_SLOWER and "wal-rus" in by_name:
        ratio = ours.of("wall") / by_name["wal-rus"].of("wall")
        yield f"- wall time {ratio:.2f} of wal-rus's, to reach 1.0: **{verdict(ratio, 1.0)}**\n"
    yield f"- memory {ours.peak:.0f} MiB at most, to reach {MOST_MEMORY} MiB: **{verdict(ours.peak, MOST_MEMORY)}**\n"
    if LIMITS.get(operation) in by_name:
        limit = by_name[LIMITS[operation]]
        yield f"- wall time {ours.of('wall') / limit.of('wall'):.2f} of that of `{limit.program}`\n"
    busy = (ours.of("cpu") + ours.of("server_cpu")) / (ours.of("wall") * os.cpu_count())
    yield f"- walpoint and the servers kept the processors busy {busy:.0%} of the time\n"
    if ours.requests:
        counted = ", ".join(f"{count} {name}" for name, count in sorted(ours.requests.items()) if count)
        yield f"- requests: {sum(ours.requests.values())} ({counted})\n"


def _in_short(why):
    """The status or the complaint, and what the program said of it."""
    first, *rest = why.splitlines()
    said = next((line for line in reversed(rest) if "ERROR" in line or "rror:" in line), "")
    return f"{first.split(' of: ')[0]} {said}".strip()[:300]


def disk(home):
    """Bytes a second, in MB, that a large file is written with."""
    path, block = f"{home}/disk", os.urandom(1 << 24)
    start = time.perf_counter()
    with open(path, "wb", buffering=0) as file:
        for _ in range(64):
            file.write(block)
        os.fsync(file.fileno())
    took = time.perf_counter() - start
    os.remove(path)
    return len(block) * 64 / took / 1e6
