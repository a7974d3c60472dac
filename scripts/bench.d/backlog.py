"""A backlog of WAL, taken the way PostgreSQL does it: one shell for each file, in order."""

import filecmp
import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field

import s3
from measure import SECOND, Failed, Sample, cpu_of, say, settle, tail

# Segments that wait, and how many of them are fetched again.
WAITING, FETCHED = 128, 64


class Stage:
    """A data directory without a server: what hooks and agents look at is there, and nothing else works on it."""

    def __init__(self, home, cluster, segments):
        self.data = f"{home}/stage"
        self.wal, self.status = f"{self.data}/pg_wal", f"{self.data}/pg_wal/archive_status"
        os.makedirs(self.status)
        os.mkdir(f"{self.data}/global")
        os.chmod(self.data, 0o700)
        for name in ("PG_VERSION", "global/pg_control"):
            shutil.copy(f"{cluster.data}/{name}", f"{self.data}/{name}")
        self.segments = segments
        for name in segments:
            os.link(f"{cluster.data}/pg_wal/{name}", f"{self.wal}/{name}")

    def empty(self):
        """Nothing waits, and what a program left here is gone."""
        for entry in os.listdir(self.status):
            os.remove(f"{self.status}/{entry}")
        for entry in set(os.listdir(self.wal)) - {"archive_status", *self.segments}:
            path = f"{self.wal}/{entry}"
            if os.path.isdir(path):
                shutil.rmtree(path)
            else:
                os.remove(path)

    def offer(self):
        """Every segment waits for the archiver."""
        for name in self.segments:
            with open(f"{self.status}/{name}.ready", "w", encoding="ascii"):
                pass

    def archived(self, name):
        """As the archiver notes it; wal-rus's daemon does so itself for what it shipped ahead."""
        if os.path.exists(f"{self.status}/{name}.ready"):
            os.rename(f"{self.status}/{name}.ready", f"{self.status}/{name}.done")

    def recovers(self, does):
        """Whether it is a cluster in recovery: for others nobody fetches ahead."""
        if does:
            with open(f"{self.data}/recovery.signal", "w", encoding="ascii"):
                pass
        elif os.path.exists(f"{self.data}/recovery.signal"):
            os.remove(f"{self.data}/recovery.signal")


@dataclass
class Way:
    """How one program takes a backlog: a shell command for each file, and perhaps a process beside them."""

    name: str
    # With %p and %f, as in archive_command and restore_command.
    push: str
    get: str
    environment: dict
    beside: list
    # Where the process beside listens, as a pattern.
    listens: str = ""
    prepare: object = None
    # Prints as JSON what the process beside has shipped before it was asked.
    status: str = ""


def ways(home, stage, garage, run):
    """All programs, each with an archive that is empty."""
    found = [_walpoint(home, stage, garage, run, agent) for agent in (True, False)]
    found += [_pgbackrest(home, stage, garage, run, several) for several in (True, False)]
    if os.path.exists(f"{home}/bin/wal-rus"):
        found += [_wal_rus(home, stage, garage, run, daemon) for daemon in (True, False)]
    return found


def _walpoint(home, stage, garage, run, agent):
    label = f"backlog-{run}-{'agent' if agent else 'hook'}"
    config, sockets = f"{home}/{label}.toml", f"{home}/sockets"
    os.makedirs(sockets, mode=0o700, exist_ok=True)
    with open(config, "w", encoding="utf-8") as file:
        file.write(
            f'[postgres]\ndata_directory = "{stage.data}"\n'
            f'[archive]\nurl = "s3://{s3.BUCKET}/{label}"\nendpoint = "{garage.endpoint}"\n'
            f'region = "{s3.REGION}"\npath_style = true\n'
            f'[agent]\nsocket_directory = "{sockets}"\nworkers = 4\nlive_tail = false\n'
        )
    program = f"{home}/bin/walpoint --config {config}"
    beside = [f"{home}/bin/walpoint", "--config", config, "--log-level", "warn", "agent"] if agent else []
    name = "walpoint, agent" if agent else "walpoint, hook alone"
    listens = f"{sockets}/*.sock" if agent else ""
    status = f"{program} --json status" if agent else ""
    push, get = f"{program} archive-push %p", f"{program} archive-get %f %p"
    return Way(name, push, get, s3.environment(), beside, listens, status=status)


def _pgbackrest(home, stage, garage, run, several):
    label = f"backlog-{run}-{'async' if several else 'sync'}"
    config = f"{home}/{label}.conf"
    with open(config, "w", encoding="utf-8") as file:
        file.write(
            f"[global]\nrepo1-path=/{label}\nrepo1-type=s3\nrepo1-s3-uri-style=path\nrepo1-s3-endpoint=localhost\n"
            f"repo1-storage-port={garage.tls_port}\nrepo1-storage-ca-file={garage.ca}\n"
            f"repo1-s3-bucket={s3.BUCKET}\nrepo1-s3-region={s3.REGION}\n"
            f"repo1-s3-key={s3.KEY_ID}\nrepo1-s3-key-secret={s3.KEY_SECRET}\n"
            f"compress-type=zst\ncompress-level=1\nprocess-max=2\nlog-level-console=warn\nlog-level-file=off\n"
            f"lock-path={home}/{label}-lock\nspool-path={home}/{label}-spool\n"
            f"archive-async={'y' if several else 'n'}\narchive-get-queue-max=1GiB\n"
            f"[backlog]\npg1-path={stage.data}\n"
        )
    program = f"pgbackrest --config={config} --stanza=backlog"
    name = "pgBackRest, async" if several else "pgBackRest, sync"

    def prepare():
        subprocess.run(f"{program} --no-online stanza-create".split(), check=True, capture_output=True)

    return Way(name, f"{program} archive-push %p", f"{program} archive-get %f %p", {}, [], prepare=prepare)


def _wal_rus(home, stage, garage, run, daemon):
    label = f"backlog-{run}-rus-{'daemon' if daemon else 'alone'}"
    environment = {
        "WALG_S3_PREFIX": f"s3://{s3.BUCKET}/{label}",
        "AWS_ENDPOINT": garage.endpoint,
        "AWS_S3_FORCE_PATH_STYLE": "true",
        "WALG_COMPRESSION_METHOD": "zstd",
        "WALG_UPLOAD_CONCURRENCY": "4",
        "WALG_DOWNLOAD_CONCURRENCY": "4",
        "PGDATA": stage.data,
        **s3.environment(),
    }
    program, path = f"{home}/bin/wal-rus", f"{home}/{label}.sock"
    if daemon:
        client = f"{program} daemon-client --socket {path}"
        return Way("wal-rus, daemon", f"{client} wal-push %p", f"{client} wal-fetch %f %p", environment, [program, "daemon", path], path)
    return Way("wal-rus, alone", f"{program} wal-push %p", f"{program} wal-fetch %f %p", environment, [])


@dataclass
class Taken:
    """What one program took for one backlog."""

    program: str
    pushed: list
    fetched: list
    # Of the process beside, in MiB.
    resident: float = 0
    # Seconds of one shell for a file that is shipped already, and of one that does nothing.
    hooks: list = field(default_factory=list)
    shells: list = field(default_factory=list)


def measure(home, cluster, garage, runs):
    """Every program drains the same backlog, in turn, and fetches its first half again."""
    segments = cluster.make_segments(WAITING)
    stage = Stage(home, cluster, segments)
    taken = {}
    for run in range(runs):
        found = ways(home, stage, garage, run)
        for way in found[run % len(found):] + found[: run % len(found)]:
            one = taken.setdefault(way.name, Taken(way.name, [], []))
            _take(home, stage, garage, way, one)
            say(f"  backlog: {way.name}, {run + 1} of {runs}")
    return list(taken.values())


def _take(home, stage, garage, way, taken):
    log = f"{home}/programs.log"
    if way.prepare:
        way.prepare()
    stage.empty()
    beside = _start(way, stage, log)
    try:
        settle()
        stage.offer()
        taken.pushed.append(_each(way, way.push, stage, stage.segments, log, garage, stage.archived))
        if way.status:
            _ask_for_what_is_shipped(way, stage, taken)
        if beside:
            taken.resident = max(taken.resident, _peak_of(beside.pid))
        settle()
        stage.recovers(True)
        taken.fetched.append(_each(way, way.get, stage, stage.segments[:FETCHED], log, garage, None))
    finally:
        stage.recovers(False)
        if beside:
            _end(beside)
        _end_left_behind(home)
        stage.empty()


def _ask_for_what_is_shipped(way, stage, taken):
    """Every segment once more, when all are shipped and PostgreSQL has not asked for one of them."""
    stage.empty()
    stage.offer()
    environment = {**os.environ, **way.environment}
    for _ in range(600):
        words = ["sh", "-c", way.status]
        answer = subprocess.run(words, cwd=stage.data, env=environment, capture_output=True, check=False).stdout
        if answer and json.loads(answer)["shipped"]["ahead"] == len(stage.segments):
            break
        time.sleep(0.1)
    else:
        raise Failed(f"{way.name} does not ship all that waits: {answer!r}")
    settle()
    for name in stage.segments:
        line = way.push.replace("%p", f"pg_wal/{name}").replace("%f", name)
        for command, samples in ((line, taken.hooks), ("true", taken.shells)):
            start = time.perf_counter_ns()
            subprocess.run(["sh", "-c", command], cwd=stage.data, env=environment, stdin=subprocess.DEVNULL, check=True)
            samples.append((time.perf_counter_ns() - start) / SECOND)
        stage.archived(name)


def _start(way, stage, log):
    if not way.beside:
        return None
    words = [*s3.LEASH, *way.beside]
    with open(log, "ab") as out:
        process = subprocess.Popen(
            words, cwd=stage.data, env={**os.environ, **way.environment}, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    for _ in range(200):
        if any(_listens(path) for path in glob.glob(way.listens)):
            return process
        time.sleep(0.05)
    _end(process)
    raise Failed(f"{way.name} does not listen\n{tail(log)}")


def _listens(path):
    try:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(path)
            return True
    except OSError:
        return False


def _end(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _each(way, command, stage, segments, log, garage, done):
    """Wall and CPU time of one shell for each file; what works beside them counts, too."""
    servers = list(garage.pids)
    before, busy = cpu_of(servers), _busy()
    start = time.perf_counter_ns()
    for number, name in enumerate(segments):
        place = f"pg_wal/{name}" if done else "pg_wal/RECOVERYXLOG"
        line = command.replace("%p", place).replace("%f", name)
        with open(log, "ab") as out:
            status = subprocess.run(
                ["sh", "-c", line], cwd=stage.data, env={**os.environ, **way.environment}, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            ).returncode
        if status != 0:
            raise Failed(f"status {status} of: {line}\n{tail(log)}")
        if done:
            done(name)
            continue
        if number % 16 == 0 and not filecmp.cmp(f"{stage.data}/{place}", f"{stage.wal}/{name}", shallow=False):
            raise Failed(f"{way.name} gave other bytes for {name}")
        os.remove(f"{stage.data}/{place}")
    wall = (time.perf_counter_ns() - start) / SECOND
    server_cpu = cpu_of(servers) - before
    return Sample(wall, _busy() - busy - server_cpu, server_cpu)


def _busy():
    """CPU seconds of the whole machine: what a program leaves running belongs to none of our children."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _wait, irq, softirq = (int(field) for field in file.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _peak_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _end_left_behind(home):
    """What a program of this run left running works no more beside the next one."""
    pattern = f"{home}/.*(prefetch|archive-(push|get):async)"
    subprocess.run(["pkill", "-f", pattern], check=False)
    for _ in range(100):
        if subprocess.run(["pgrep", "-f", pattern], capture_output=True, check=False).returncode != 0:
            return
        time.sleep(0.1)
    subprocess.run(["pkill", "-KILL", "-f", pattern], check=False)
