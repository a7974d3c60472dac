"""The four operations, each done by every program in turn."""

import filecmp
import os
import shutil
from collections import Counter
from dataclasses import dataclass, field

from measure import Failed, median, peak_memory, run, say, settle

RECEIVED = "pg_wal/RECOVERYXLOG"
# To reach, as a share of pgBackRest's time.
BARS = {
    ("push", "s3"): 0.6,
    ("get", "s3"): 0.6,
    ("push", "directory"): 0.6,
    ("get", "directory"): 0.8,
    ("backup", "s3"): 0.4,
    ("backup", "directory"): 0.4,
    ("restore", "s3"): 0.4,
    ("restore", "directory"): 0.4,
}
MOST_MEMORY = {"push": 64, "get": 64, "backup": 256, "restore": 256}


@dataclass
class Row:
    """What one program took for one operation."""

    operation: str
    store: str
    program: str
    samples: list = field(default_factory=list)
    # Ours only.
    peak: float = 0
    requests: Counter = field(default_factory=Counter)

    def of(self, what):
        return median([getattr(sample, what) for sample in self.samples])


class Bench:
    """Runs the operations on one store."""

    def __init__(self, home, cluster, garage, store):
        self.home, self.cluster, self.garage, self.store = home, cluster, garage, store
        self.log = f"{home}/programs.log"

    def in_turn(self, operation, programs, runs, prepare, job, check):
        """Every program once, then again, each time another one first. One run
        before is not counted; one after is for ours alone, to see its memory."""
        programs = [program for program in programs if hasattr(program, operation)]
        rows = {program.name: Row(operation, self.store, program.name) for program in programs}
        for turn in range(runs + 1):
            first = turn % len(programs)
            for program in programs[first:] + programs[:first]:
                prepare(program, turn)
                settle()
                sample = run(job(program, turn), self.log, self._servers(operation))
                check(program, turn)
                if turn > 0:
                    rows[program.name].samples.append(sample)
            say(f"  {operation}, {self.store}: {turn} of {runs}")
        for program in programs:
            if program.name.startswith("walpoint"):
                prepare(program, runs + 1)
                before = self._requests()
                rows[program.name].peak = peak_memory(job(program, runs + 1), self.log)
                rows[program.name].requests = self._requests() - before
                check(program, runs + 1)
        return list(rows.values())

    def push(self, programs, runs, segments):
        def nothing(_program, _turn):
            pass

        return self.in_turn("push", programs, runs, nothing, lambda program, turn: program.push(segments[turn]), nothing)

    def get(self, programs, runs, segments):
        received = f"{self.cluster.data}/{RECEIVED}"

        def prepare(_program, _turn):
            if os.path.exists(received):
                os.remove(received)

        def check(program, turn):
            if not filecmp.cmp(received, f"{self.cluster.data}/pg_wal/{segments[turn]}", shallow=False):
                raise Failed(f"{program.name} gave other bytes for {segments[turn]}")
            os.remove(received)

        return self.in_turn("get", programs, runs, prepare, lambda program, turn: program.get(segments[turn], RECEIVED), check)

    def backup(self, programs, runs):
        def prepare(program, _turn):
            self.cluster.archive_with(program.archive_command())

        def check(_program, _turn):
            self.cluster.archive_with("/bin/true")

        return self.in_turn("backup", programs, runs, prepare, lambda program, _turn: program.backup(), check)

    def restore(self, programs, runs):
        target = f"{self.home}/restored"

        def prepare(_program, _turn):
            shutil.rmtree(target, ignore_errors=True)
            os.mkdir(target, mode=0o700)

        def check(program, _turn):
            base = f"{target}/base"
            if not _same_files(f"{self.cluster.data}/base", base):
                raise Failed(f"{program.name} restored other files than there were")
            shutil.rmtree(target)

        return self.in_turn("restore", programs, runs, prepare, lambda program, _turn: program.restore(target), check)

    def _servers(self, operation):
        pids = self.garage.pids if self.garage else []
        return pids + (self.cluster.pids if operation == "backup" else [])

    def _requests(self):
        return Counter(self.garage.requests() if self.garage else {})


def _same_files(original, restored):
    """Same names and sizes. Files that hold no data of their own are not backed up."""
    return _sizes(original) == _sizes(restored)


def _sizes(top):
    sizes = {}
    for folder, _, files in os.walk(top):
        for name in files:
            if name != "pg_internal.init":
                path = os.path.join(folder, name)
                sizes[os.path.relpath(path, top)] = os.path.getsize(path)
    return sizes
