"""What draining a backlog came to, as a table and as a picture."""

from backlog import FETCHED, WAITING
from measure import median
from report import verdict

OURS = "walpoint, agent"
MOST_RESIDENT = 64
# Of a hook for what is shipped already, above a shell that does nothing.
MOST_HOOK_MS = 3
ASYNC, DAEMON = "pgBackRest, async", "wal-rus, daemon"


def rate(samples, segments):
    """Segments a second, of the median run."""
    return segments / median([sample.wall for sample in samples])


def cpu(samples, segments):
    """CPU milliseconds for one segment, without the server's."""
    return median([sample.cpu for sample in samples]) / segments * 1000


def table(taken):
    """One line for each program."""
    lines = [
        f"### a backlog of {WAITING} segments drained and {FETCHED} fetched in order, Garage (median of {len(taken[0].pushed)})\n\n",
        "Every run counts. CPU is that of the whole machine but for Garage and the TLS, for what a program leaves running "
        "is no child of anybody; the shells are in it. walpoint's agent and wal-rus ship 4 files at once, pgBackRest 2 "
        "(`process-max=2`) and through TLS.\n\n",
        "| | drained, segments/s | CPU each | fetched, segments/s | CPU each | resident beside |\n",
        "|---|---:|---:|---:|---:|---:|\n",
    ]
    for one in taken:
        resident = f"{one.resident:.0f} MiB" if one.resident else ""
        lines.append(
            f"| {one.program} | {rate(one.pushed, WAITING):.1f} | {cpu(one.pushed, WAITING):.0f} ms "
            f"| {rate(one.fetched, FETCHED):.1f} | {cpu(one.fetched, FETCHED):.0f} ms | {resident} |\n"
        )
    return "".join(lines) + "\n" + "".join(_judgements(taken)) + "\n"


def _judgements(taken):
    by_name = {one.program: one for one in taken}
    ours = by_name[OURS]
    drained = rate(ours.pushed, WAITING)
    for name, bar in ((ASYNC, 1.6), (DAEMON, 1.2)):
        if name in by_name:
            times = drained / rate(by_name[name].pushed, WAITING)
            yield f"- drained {times:.2f} times as fast as {name}, to reach {bar}: **{_at_least(times, bar)}**\n"
    peers = [one for one in taken if not one.program.startswith("walpoint")]
    better = max(peers, key=lambda one: rate(one.fetched, FETCHED))
    times = rate(ours.fetched, FETCHED) / rate(better.fetched, FETCHED)
    yield f"- fetched {times:.2f} times as fast as {better.program}, to reach 2.5: **{_at_least(times, 2.5)}**\n"
    if DAEMON in by_name:
        share = cpu(ours.pushed, WAITING) / cpu(by_name[DAEMON].pushed, WAITING)
        yield f"- CPU for a segment {share:.2f} of {DAEMON}'s, to reach 1.0: **{verdict(share, 1.0)}**\n"
    if ours.hooks:
        above = (median(ours.hooks) - median(ours.shells)) * 1000
        yield (
            f"- a hook for a segment that is shipped already: {above:.1f} ms above `sh -c true` ({median(ours.shells) * 1000:.1f} ms), "
            f"to reach {MOST_HOOK_MS} ms: **{verdict(above, MOST_HOOK_MS)}**\n"
        )
    yield f"- memory {ours.resident:.0f} MiB at 4 in flight, to reach {MOST_RESIDENT} MiB: **{verdict(ours.resident, MOST_RESIDENT)}**\n"


def _at_least(times, bar):
    return verdict(1 / times, 1 / bar)


def picture(taken):
    """Bars of segments drained in a second, as SVG."""
    width, line, left = 640, 34, 170
    most = max(rate(one.pushed, WAITING) for one in taken)
    height = line * len(taken) + 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="13">\n',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n',
        f'<text x="10" y="22" fill="#222222">WAL segments of 16 MiB archived in a second, a backlog of {WAITING}</text>\n',
    ]
    for number, one in enumerate(sorted(taken, key=lambda one: -rate(one.pushed, WAITING))):
        value = rate(one.pushed, WAITING)
        top = 36 + line * number
        length = (width - left - 70) * value / most
        color = "#2a6f97" if one.program.startswith("walpoint") else "#a9b4bc"
        parts.append(f'<text x="{left - 8}" y="{top + 17}" text-anchor="end" fill="#222222">{one.program}</text>\n')
        parts.append(f'<rect x="{left}" y="{top}" width="{length:.0f}" height="{line - 10}" fill="{color}"/>\n')
        parts.append(f'<text x="{left + length + 8:.0f}" y="{top + 17}" fill="#222222">{value:.1f}</text>\n')
    return "".join(parts) + "</svg>\n"
