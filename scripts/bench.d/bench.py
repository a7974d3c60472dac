"""Sets the stage, measures, prints. Started by scripts/bench, which has put
everything that is needed under --home and dropped root's rights."""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

import backlog
import backlog_report
import nightly
import nightly_report
import report
from cluster import Cluster
from measure import Failed, say
from operations import Bench
from programs import Copy, PgBackRest, PgBaseBackup, Walpoint, WalRus
from s3 import Garage

OPERATIONS = ["push", "get", "backup", "restore", "backlog"]
STORES = ["directory", "s3"]


def arguments():
    parser = argparse.ArgumentParser()
    for name in ("--home", "--postgres", "--commit"):
        parser.add_argument(name, required=True)
    parser.add_argument("--only", choices=[*OPERATIONS, "nightly"])
    parser.add_argument("--store", choices=STORES)
    parser.add_argument("--scale", type=int, default=100)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--backup-runs", type=int, default=9)
    parser.add_argument("--backlog-runs", type=int, default=3)
    parser.add_argument("--nightly-scale", type=int, default=200)
    parser.add_argument("--nightly-runs", type=int, default=3)
    return parser.parse_args()


def programs_for(store, home, cluster, garage):
    """Those that can work with this store, ours first."""
    programs = [Walpoint(home, cluster, store, garage), PgBackRest(home, cluster, store, garage)]
    if garage:
        programs.insert(1, Walpoint(home, cluster, store, garage, tls=True))
    if WalRus.found(home):
        programs.append(WalRus(home, cluster, store, garage))
    if not garage:
        programs += [PgBaseBackup(home, cluster), Copy(home, cluster)]
    for program in programs:
        program.prepare()
    return programs


def measure(asked, cluster, garage):
    """All rows that were asked for, and the programs' versions."""
    wanted = [asked.only] if asked.only else OPERATIONS
    rows, versions = [], []
    segments = []
    if {"push", "get"} & set(wanted):
        segments = cluster.make_segments(asked.runs + 2)
    stores = [asked.store] if asked.store else STORES
    for store in stores if asked.only != "backlog" else []:
        server = garage if store == "s3" else None
        bench = Bench(asked.home, cluster, server, store)
        programs = programs_for(store, asked.home, cluster, server)
        versions += [f"{program.name} {program.version}" for program in programs if "TLS" not in program.name]
        if {"push", "get"} & set(wanted):
            pushed = bench.push(programs, asked.runs, segments)
            rows += pushed if "push" in wanted else []
        if "get" in wanted:
            rows += bench.get(programs, asked.runs, segments)
        if {"backup", "restore"} & set(wanted):
            made = bench.backup(programs, asked.backup_runs if "backup" in wanted else 1)
            rows += made if "backup" in wanted else []
        if "restore" in wanted:
            rows += bench.restore(programs, asked.backup_runs)
    return rows, list(dict.fromkeys(versions))


@contextlib.contextmanager
def stage(home, postgres, with_garage, scale, fillfactor=100):
    """A cluster, and Garage where it is wanted, for as long as they are needed."""
    cluster = Cluster(home, postgres)
    garage = Garage(home) if with_garage else None
    try:
        cluster.start(scale, fillfactor)
        if garage:
            garage.start()
        yield cluster, garage
    finally:
        if garage:
            garage.stop()
        cluster.stop()


def make_room(home, also=()):
    """Takes away what programs kept in directories."""
    for entry in os.scandir(home):
        if entry.is_dir() and (entry.name.endswith(("-archive", "-repository")) or entry.name in ("pg_basebackup", "copies", *also)):
            shutil.rmtree(entry.path)


def single_operations(asked):
    """Everything but the nights: the figures, the cluster in a line, and the programs' versions."""
    with stage(asked.home, asked.postgres, asked.store != "directory", asked.scale) as (cluster, garage):
        rows, versions = measure(asked, cluster, garage)
        table = report.table(rows)
        print(table)
        if garage and asked.only in (None, "backlog"):
            taken = backlog.measure(asked.home, cluster, garage, asked.backlog_runs)
            drained = backlog_report.table(taken)
            print(drained)
            table += drained
            with open(f"{asked.home}/backlog.svg", "w", encoding="utf-8") as file:
                file.write(backlog_report.picture(taken))
        line = report.cluster(asked.scale, cluster.bytes())
    make_room(asked.home, ["data", "garage", "stage"])
    return f"## Figures\n\n{table}", line, versions


def nights(asked):
    """A large cluster's nights, on a stage of their own: the figures and the programs' versions."""
    home = f"{asked.home}/nightly"
    os.mkdir(home, mode=0o700)
    os.symlink(f"{asked.home}/bin", f"{home}/bin")
    scale = asked.nightly_scale
    rows, left_out, versions = [], [], []
    with stage(home, asked.postgres, asked.store != "directory", scale, nightly.FILLFACTOR) as (cluster, garage):
        size = cluster.bytes()
        for store in [asked.store] if asked.store else STORES:
            night = nightly.Nightly(home, cluster, garage if store == "s3" else None, store, asked.nightly_runs)
            night.measure()
            rows += night.rows
            left_out += night.left_out
            make_room(home)
            versions += [f"{program.name.split(',')[0]} {program.version}" for program in night.programs]
        on = {"scale": scale, "fillfactor": nightly.FILLFACTOR, "bytes": size, "changed": night.changed, "disk": nightly_report.disk(home)}
        table = nightly_report.section(rows, left_out, on)
    print(table)
    return table, versions


def main():
    asked = arguments()
    if (asked.only, asked.store) == ("backlog", "directory"):
        sys.exit("bench: the backlog is drained to Garage")
    # An end by a signal is an end like any other: the servers go too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    load_before = _load()
    tables, line, versions = [], "", []
    try:
        if asked.only != "nightly":
            table, line, versions = single_operations(asked)
            tables.append(table)
        if asked.only in (None, "nightly"):
            table, more = nights(asked)
            tables.append(table)
            versions += more
    except Failed as failed:
        sys.exit(f"bench: {failed}")
    described = {
        "machine": report.machine(asked.home),
        "load_before": load_before,
        "load_after": _load(),
        "when": time.strftime("%Y-%m-%d", time.gmtime()),
        "cluster": line,
        "versions": [*dict.fromkeys(versions), _version(f"{asked.postgres}/postgres"), _version(f"{asked.home}/bin/garage")],
        "commit": asked.commit,
        "wal_rus": "measured" if WalRus.found(asked.home) else "not found on PATH, so not measured",
        "command": " ".join(_command(asked)),
    }
    with open(f"{asked.home}/result.md", "w", encoding="utf-8") as file:
        file.write(report.document("\n".join(tables), described))


def _command(asked):
    yield "scripts/bench"
    for name, value in (("only", asked.only), ("store", asked.store)):
        if value:
            yield f"--{name} {value}"
    for name, value, usual in (
        ("scale", asked.scale, 100),
        ("runs", asked.runs, 15),
        ("backup-runs", asked.backup_runs, 9),
        ("backlog-runs", asked.backlog_runs, 3),
        ("nightly-scale", asked.nightly_scale, 200),
        ("nightly-runs", asked.nightly_runs, 3),
    ):
        if value != usual:
            yield f"--{name} {value}"


def _version(program):
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split("[")[0].strip()


def _load():
    return f"{os.getloadavg()[0]:.1f}"


if __name__ == "__main__":
    main()
