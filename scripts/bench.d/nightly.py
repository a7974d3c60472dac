"""What a large cluster goes through: a full backup, an incremental one, its restore, a restore over what is there
already, and the proof that all of it can be read back."""

import os
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, field

from measure import Failed, Job, median, run, say, settle, tail
from programs import Copy, PgBackRest, PgBaseBackup, Walpoint, WalRus
from restored import Restored

# Of the pages, between two backups and before a restore over them.
CHANGED = 0.01
# Room for a row's next version on its own page, so that a change of one page is one.
FILLFACTOR = 95
BY_BLOCK, BY_FILE = "pgBackRest, by block", "pgBackRest, by file"


@dataclass
class Row:
    """What one program took for one operation."""

    operation: str
    store: str
    program: str
    samples: list = field(default_factory=list)
    # Bytes that each run added to what is stored of backups; of `verify` those that are there to be read.
    stored: list = field(default_factory=list)
    requests: Counter = field(default_factory=Counter)

    def of(self, what):
        return median([getattr(sample, what) for sample in self.samples])

    @property
    def peak(self):
        return max(sample.peak for sample in self.samples)


@dataclass(frozen=True)
class LeftOut:
    """A program that could not do what the others did."""

    operation: str
    store: str
    program: str
    why: str


def programs_for(store, home, cluster, garage):
    """Those that can work with this store, ours first."""
    place = (home, cluster, store, garage)
    programs = [Walpoint(*place)] + ([Walpoint(*place, tls=True)] if garage else []) + _pgbackrests(*place)
    if WalRus.found(home):
        programs.append(WalRus(*place))
    if not garage:
        programs += [PgBaseBackup(home, cluster), Copy(home, cluster), Zstd(home, cluster)]
    for program in programs:
        program.prepare()
    return programs


def _pgbackrests(*place):
    """It stores whole files, and what changed of them where its version can; in bundles where it has them."""
    known, blocks = PgBackRest.help("backup"), PgBackRest.help("backup", "repo-block")
    options = ["repo1-retention-full=99"] + (["repo1-bundle=y"] if "--repo-bundle " in known else [])
    found = [_named(BY_FILE, PgBackRest(*place, label="files", options=options))]
    if "--repo-block " in known:
        options += ["repo1-block=y"] + (["beta=y"] if "BETA" in blocks else [])
        found.insert(0, _named(BY_BLOCK, PgBackRest(*place, label="blocks", options=options)))
    return found


def _named(name, program):
    program.name = name
    return program


class Nightly:
    """Runs the operations on one store, one after the other: each needs what those before it have left."""

    def __init__(self, home, cluster, garage, store, runs):
        self.home, self.cluster, self.garage, self.store, self.runs = home, cluster, garage, store, runs
        self.log, self.target = f"{home}/programs.log", f"{home}/restored"
        self.programs = programs_for(store, home, cluster, garage)
        self.rows, self.left_out = [], []
        # After the last change: what a query answers, and the share of pages that are new.
        self.answer, self.changed = None, 0
        # What each program's archive has of the WAL since now: what was finished before is nobody's.
        self.shipped = {program.name: set(cluster.finished_segments()) for program in self.programs}

    def measure(self):
        """All operations, in their order."""
        self._rounds("backup", self._archives, lambda program: program.backup(), self._archives_no_more)
        self._rounds("incremental", self._archives, lambda program: program.incremental(), self._was_incremental, self._change)
        self._rounds("restore", self._empty_target, lambda program: program.restore(self.target), self._is_restored)
        self._rounds("delta", self._damaged_target, lambda program: program.delta(self.target), self._is_restored)
        for program in self.programs:
            self._ship(program)
        self._rounds("verify", lambda _program: None, lambda program: program.verify(), self._found_all_sound, runs=(self.runs + 1) // 2)

    def _rounds(self, operation, prepare, job, check, before_all=lambda: None, runs=None):
        """Every program once, then again, each time another one first. The first round is not counted; a peer
        that fails in it is left out, and said so."""
        programs = [program for program in self.programs if hasattr(program, operation)]
        rows = {program.name: Row(operation, self.store, program.name) for program in programs}
        runs = runs or self.runs
        for turn in range(runs + 1):
            before_all()
            first = turn % len(programs)
            for program in programs[first:] + programs[:first]:
                try:
                    prepare(program)
                    taken = self._once(operation, program, job(program))
                    check(program, turn)
                except Failed as failed:
                    if turn > 0 or program.name.startswith("walpoint"):
                        raise
                    say(f"  {operation}, {self.store}: without {program.name}: {failed}")
                    self.left_out.append(LeftOut(operation, self.store, program.name, str(failed)))
                    programs.remove(program)
                    if operation in ("backup", "incremental"):
                        # What follows needs it.
                        self.programs.remove(program)
                    del rows[program.name]
                    continue
                if turn > 0:
                    row = rows[program.name]
                    row.samples.append(taken[0])
                    row.stored.append(taken[1])
                    row.requests = taken[2]
            say(f"  {operation}, {self.store}: {turn} of {runs}")
        self.rows += rows.values()

    def _once(self, operation, program, job):
        stored = getattr(program, "archived" if operation == "verify" else "stored", lambda: 0)
        before = 0 if operation == "verify" else stored()
        settle()
        asked = self._requests()
        sample = run(job, self.log, self._servers(operation), memory=True)
        asked = self._requests() - asked
        return sample, stored() - before, asked

    def _archives(self, program):
        """PostgreSQL archives with this program, which has all WAL that went to the others."""
        self._ship(program)
        if hasattr(program, "archive_command"):
            self.cluster.archive_with(program.archive_command())

    def _archives_no_more(self, program, _turn):
        self.cluster.archive_with("/bin/true")
        if hasattr(program, "archive_command"):
            self.shipped[program.name].update(self.cluster.finished_segments())

    def _ship(self, program):
        shipped = self.shipped[program.name]
        for segment in self.cluster.finished_segments() if hasattr(program, "incremental") else []:
            if segment not in shipped:
                run(program.push(segment), self.log)
                shipped.add(segment)

    def _change(self):
        since = self.cluster.lsn()
        self.answer = self.cluster.change(CHANGED)
        self.changed = self.cluster.share_changed_since(since)

    def _was_incremental(self, program, turn):
        self._archives_no_more(program, turn)
        if not program.was_incremental():
            raise Failed(f"{program.name} took a full backup instead of an incremental one")

    def _empty_target(self, _program):
        shutil.rmtree(self.target, ignore_errors=True)
        os.mkdir(self.target, mode=0o700)

    def _damaged_target(self, program):
        self._empty_target(program)
        run(program.restore(self.target), self.log)
        Restored(self.cluster, self.target).damage(CHANGED)

    def _is_restored(self, program, turn):
        restored = Restored(self.cluster, self.target)
        restored.must_equal(program)
        # cp brings tables alone, no cluster.
        if turn == 0 and os.path.exists(f"{self.target}/PG_VERSION"):
            restored.must_answer(program, self.answer)
        shutil.rmtree(self.target)

    def _found_all_sound(self, program, _turn):
        if hasattr(program, "found_all_sound") and not program.found_all_sound(tail(self.log, 200)):
            raise Failed("its verify calls damaged what was restored from it and compared")

    def _servers(self, operation):
        pids = self.garage.pids if self.garage else []
        return pids + (self.cluster.pids if operation in ("backup", "incremental") else [])

    def _requests(self):
        return Counter(self.garage.requests() if self.garage else {})


class Zstd:
    """zstd alone, on both processors: what compressing takes when nothing else is done."""

    name = "cat, zstd -1 -T2"

    def __init__(self, home, cluster):
        self.cluster, self.target = cluster, f"{home}/compressed.zst"

    def prepare(self):
        pass

    @property
    def version(self):
        return subprocess.run(["zstd", "--version"], capture_output=True, text=True, check=True).stdout.strip().strip("*").strip()

    def backup(self):
        if os.path.exists(self.target):
            os.remove(self.target)
        script = 'find "$1" -type f -print0 | xargs -0 cat | zstd -q -1 -T2 -o "$2" && sync "$2"'
        return Job(["sh", "-c", script, "sh", f"{self.cluster.data}/base", self.target])

    def stored(self):
        return os.path.getsize(self.target) if os.path.exists(self.target) else 0
