"""The PostgreSQL that is archived, with real data and real WAL."""

import os
import re
import struct
import subprocess
import time

from measure import say, settle

PAGE = 8192
IDLE_COMMAND = "/bin/true"
# Of every row of the table that is changed.
ANSWER = "select count(*), sum(aid), sum(abalance) from pgbench_accounts"


class Cluster:
    """One server with checksums, filled by pgbench."""

    def __init__(self, home, bin_directory):
        self.home, self.bin = home, bin_directory
        self.data = f"{home}/data"
        self.connection = f"host={home} port=5432 user=postgres dbname=postgres"

    def start(self, scale, fillfactor=100):
        self._run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "--locale=C", "-E", "UTF8", "-k", "-N")
        with open(f"{self.data}/postgresql.conf", "a", encoding="utf-8") as file:
            # fsync is off for the cluster alone: its writes are not measured. WAL
            # stays, for it is what is pushed. Nothing may work behind our back.
            file.write(
                f"listen_addresses = ''\nunix_socket_directories = '{self.home}'\nport = 5432\n"
                f"archive_mode = on\narchive_command = '{IDLE_COMMAND}'\nwal_keep_size = 20GB\n"
                "max_wal_size = 40GB\ncheckpoint_timeout = 1h\nautovacuum = off\nfsync = off\n"
                "synchronous_commit = off\nshared_buffers = 512MB\nbgwriter_lru_maxpages = 0\n"
            )
        self._run("pg_ctl", "-D", self.data, "-l", f"{self.home}/postgres.log", "-w", "-t", "120", "start")
        say(f"filling a cluster with pgbench, scale {scale}")
        self._pgbench("-i", "-q", "-s", str(scale), "-F", str(fillfactor))

    def stop(self):
        if os.path.exists(f"{self.data}/postmaster.pid"):
            self._run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")

    def make_segments(self, count):
        """Lets pgbench work until so many segments in a row are full, and names them. With checkpoints in between, as
        a server has them: without one the WAL soon has no full page images any more."""
        say(f"letting pgbench write {count} segments of WAL")
        self.sql("checkpoint")
        first = self.sql("select pg_walfile_name(pg_switch_wal() + 16777216)")
        while True:
            self._pgbench("-n", "-c", "4", "-T", "3")
            current = self.sql("select pg_walfile_name(pg_current_wal_lsn())")
            names = [name for name in sorted(os.listdir(f"{self.data}/pg_wal")) if first <= name < current]
            names = [name for name in names if re.fullmatch("[0-9A-F]{24}", name)]
            if len(names) >= count:
                break
            self.sql("checkpoint")
        self.sql("select pg_switch_wal()")
        self.rest()
        return names[:count]

    def change(self, share):
        """Updates one row on so large a share of the accounts' pages, at random, and has them written.

        Returns what a query answers then. The new row stays on its page when the fill factor leaves room for it, and
        reading leaves nothing to write behind: what is on disk stays as it is until the next change."""
        pages = int(self.sql("select pg_relation_size('pgbench_accounts') / 8192"))
        self.sql(
            "update pgbench_accounts set abalance = abalance + 1 where aid = any (array(select 1 + floor(random() * "
            f"(select max(aid) from pgbench_accounts))::int from generate_series(1, {int(pages * share)})))"
        )
        answer = self.sql(ANSWER)
        self.sql("checkpoint")
        self.sql("select pg_switch_wal()")
        self.rest()
        return answer

    def table_files(self):
        """Of pgbench's tables and indexes: all forks, below the data directory."""
        paths = self.sql("select pg_relation_filepath(oid) from pg_class where relname like 'pgbench%' and relkind in ('r', 'i')")
        names = os.listdir(f"{self.data}/{os.path.dirname(paths.splitlines()[0])}")
        for path in paths.splitlines():
            folder, number = os.path.split(path)
            yield from (f"{folder}/{name}" for name in names if re.fullmatch(rf"{number}(\.\d+|_fsm|_vm)*", name))

    def lsn(self):
        return int(self.sql("select pg_current_wal_insert_lsn() - '0/0'"))

    def share_changed_since(self, lsn):
        """Of all pages of pgbench's tables and indexes, told by what is written at the head of each."""
        pages, changed = 0, 0
        for name in self.table_files():
            with open(f"{self.data}/{name}", "rb", buffering=0) as file:
                for offset in range(0, os.fstat(file.fileno()).st_size, PAGE):
                    high, low = struct.unpack("<II", os.pread(file.fileno(), 8, offset))
                    pages += 1
                    changed += (high << 32 | low) > lsn
        return changed / pages

    def finished_segments(self):
        """Segments that the archiver is done with, and that are still there."""
        done = (name.removesuffix(".done") for name in os.listdir(f"{self.data}/pg_wal/archive_status") if name.endswith(".done"))
        return sorted(name for name in done if re.fullmatch("[0-9A-F]{24}", name) and os.path.exists(f"{self.data}/pg_wal/{name}"))

    def archive_with(self, command):
        """Waits until all that is finished has gone the old way before the new one begins."""
        self.rest()
        self.sql(f"alter system set archive_command = '{command}'")
        self.sql("select pg_reload_conf()")
        for _ in range(100):
            if self.sql("show archive_command") == command:
                break
            time.sleep(0.05)
        # The archiver reads it at its own next look.
        time.sleep(0.5)

    def rest(self):
        """Nothing is waiting to be written or archived when this returns."""
        self.sql("checkpoint")
        for _ in range(600):
            if self.sql("select count(*) from pg_ls_archive_statusdir() where name like '%.ready'") == "0":
                break
            time.sleep(0.1)
        settle()

    @property
    def identifier(self):
        return self.sql("select system_identifier from pg_control_system()")

    def bytes(self):
        """Of the data directory without its WAL."""
        total = 0
        for folder, folders, files in os.walk(self.data):
            if folder == self.data:
                folders.remove("pg_wal")
            total += sum(os.path.getsize(os.path.join(folder, name)) for name in files)
        return total

    @property
    def pids(self):
        """The server's processes that live on."""
        with open(f"{self.data}/postmaster.pid", encoding="ascii") as file:
            return [int(file.readline())]

    def sql(self, text, connection=None):
        words = [f"{self.bin}/psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text, connection or self.connection]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()

    def _pgbench(self, *words):
        self._run("pgbench", *words, self.connection)

    def _run(self, name, *words):
        with open(f"{self.home}/cluster.log", "ab") as log:
            subprocess.run([f"{self.bin}/{name}", *words], check=True, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
