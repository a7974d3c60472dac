"""The programs that are measured: how each pushes, gets, backs up and restores."""

import json
import os
import shutil
import subprocess
from dataclasses import replace

import s3
from measure import Job

STANZA = "bench"


class Walpoint:
    """Ours, with the settings it has by itself."""

    name = "walpoint"

    def __init__(self, home, cluster, store, garage=None, tls=False):
        self.home, self.cluster, self.store = home, cluster, store
        self.environment = s3.environment() if garage else {}
        label = store + ("-tls" if tls else "")
        if tls:
            self.name = "walpoint, over TLS"
        self.garage, self.place = garage, label if garage else f"{home}/walpoint-archive"
        self.config = f"{home}/walpoint-{label}.toml"
        self.latest = None
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(f'[postgres]\ndata_directory = "{cluster.data}"\nconnection = "{cluster.connection}"\n[archive]\n')
            if garage:
                endpoint = garage.tls_endpoint if tls else garage.endpoint
                file.write(f'url = "s3://{s3.BUCKET}/{label}"\nendpoint = "{endpoint}"\n')
                file.write(f'region = "{s3.REGION}"\npath_style = true\n')
                file.write(f'ca_file = "{garage.ca}"\n' if tls else "")
            else:
                os.mkdir(f"{home}/walpoint-archive")
                file.write(f'url = "file://{home}/walpoint-archive"\n')

    def prepare(self):
        pass

    @property
    def version(self):
        return _first_line([f"{self.home}/bin/walpoint", "--version"])

    def archive_command(self):
        given = "".join(f"{name}={value} " for name, value in self.environment.items())
        return f"{given}{self.home}/bin/walpoint --config {self.config} archive-push %p"

    def push(self, segment):
        return self._job("archive-push", f"pg_wal/{segment}")

    def get(self, segment, target):
        return self._job("archive-get", segment, target)

    def backup(self):
        return self._job("backup")

    def incremental(self):
        return self._job("backup", "--incremental")

    def was_incremental(self):
        """Whether the newest backup is."""
        return json.loads(_output(self._job("--json", "list")))["backups"][-1]["kind"] == "incr"

    def restore(self, target):
        return self._job("restore", "--target-immediate", "--data-directory", target)

    def delta(self, target):
        return self._job("restore", "--delta", "--target-immediate", "--data-directory", target)

    def verify(self):
        return self._job("verify")

    def stored(self):
        """Bytes of backups, without WAL."""
        return _stored(self.garage, f"{self.place}/{self.cluster.identifier}/backup")

    def archived(self):
        return _stored(self.garage, f"{self.place}/{self.cluster.identifier}")

    def _job(self, *words):
        program = [f"{self.home}/bin/walpoint", "--config", self.config, "--log-level", "warn", *words]
        return Job(program, self.environment, self.cluster.data)


class PgBackRest:
    """Debian's, with zstd as we have it and both cores; `options` are those of the repository beside."""

    name = "pgBackRest"

    def __init__(self, home, cluster, store, garage=None, label="pgbackrest", options=("repo1-retention-full=9",)):
        self.home, self.cluster, self.store = home, cluster, store
        self.garage, self.place = garage, label if garage else f"{home}/{label}-repository"
        self.config = f"{home}/{label}-{store}.conf"
        place = f"repo1-path={self.place}\n"
        if garage:
            place = (
                f"repo1-path=/{label}\nrepo1-type=s3\nrepo1-s3-uri-style=path\nrepo1-s3-endpoint=localhost\n"
                f"repo1-storage-port={garage.tls_port}\nrepo1-storage-ca-file={garage.ca}\n"
                f"repo1-s3-bucket={s3.BUCKET}\nrepo1-s3-region={s3.REGION}\n"
                f"repo1-s3-key={s3.KEY_ID}\nrepo1-s3-key-secret={s3.KEY_SECRET}\n"
            )
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(
                f"[global]\n{place}compress-type=zst\ncompress-level=1\nprocess-max=2\nstart-fast=y\n"
                f"log-level-console=warn\nlog-level-file=off\nlock-path={home}/{label}-lock-{store}\n"
                f"spool-path={home}/{label}-spool\n" + "".join(f"{option}\n" for option in options) +
                f"[{STANZA}]\npg1-path={cluster.data}\npg1-socket-path={home}\npg1-user=postgres\n"
            )

    @staticmethod
    def help(*words):
        """What this version says of itself."""
        return subprocess.run(["pgbackrest", "help", *words], capture_output=True, text=True, check=False).stdout

    def prepare(self):
        subprocess.run(self._job("stanza-create").words, check=True, capture_output=True)

    @property
    def version(self):
        return _first_line(["pgbackrest", "version"])

    def archive_command(self):
        return f"pgbackrest --config={self.config} --stanza={STANZA} archive-push %p"

    def push(self, segment):
        return self._job("archive-push", f"pg_wal/{segment}")

    def get(self, segment, target):
        return self._job("archive-get", segment, target)

    def backup(self):
        return self._job("--type=full", "backup")

    def incremental(self):
        return self._job("--type=incr", "backup")

    def was_incremental(self):
        """Whether the newest backup is."""
        return json.loads(_output(self._job("info", "--output=json")))[0]["backup"][-1]["type"] == "incr"

    def restore(self, target):
        return self._job(f"--pg1-path={target}", "--type=immediate", "restore")

    def delta(self, target):
        return self._job(f"--pg1-path={target}", "--type=immediate", "--delta", "restore")

    def verify(self):
        return self._job("--output=text", "--verbose", "verify")

    @staticmethod
    def found_all_sound(said):
        """Its status does not tell."""
        return said.rpartition("stanza: ")[2].startswith(f"{STANZA}\nstatus: ok\n")

    def stored(self):
        """Bytes of backups, without WAL."""
        return _stored(self.garage, f"{self.place}/backup")

    def archived(self):
        return _stored(self.garage, self.place)

    def _job(self, *words):
        program = ["pgbackrest", f"--config={self.config}", f"--stanza={STANZA}", *words]
        return Job(program, cwd=self.cluster.data)


class WalRus:
    """wal-rus, where somebody has it. Nothing that it writes to a disk is synced."""

    name = "wal-rus"

    def __init__(self, home, cluster, store, garage=None):
        self.home, self.cluster, self.durable = home, cluster, garage is not None
        self.garage, self.place = garage, "wal-rus" if garage else f"{home}/wal-rus-archive"
        place = {"WALG_FILE_PREFIX": f"{home}/wal-rus-archive"}
        if garage:
            place = {
                "WALG_S3_PREFIX": f"s3://{s3.BUCKET}/wal-rus",
                "AWS_ENDPOINT": garage.endpoint,
                "AWS_S3_FORCE_PATH_STYLE": "true",
                **s3.environment(),
            }
        else:
            os.mkdir(place["WALG_FILE_PREFIX"])
        self.environment = {
            **place,
            "WALG_COMPRESSION_METHOD": "zstd",
            "WALG_UPLOAD_CONCURRENCY": "2",
            "WALG_DOWNLOAD_CONCURRENCY": "2",
            "PGHOST": home,
            "PGUSER": "postgres",
            "PGDATA": cluster.data,
        }

    @staticmethod
    def found(home):
        return os.path.exists(f"{home}/bin/wal-rus")

    def prepare(self):
        pass

    @property
    def version(self):
        return _first_line([f"{self.home}/bin/wal-rus", "--version"])

    def archive_command(self):
        given = "".join(f"{name}={value} " for name, value in self.environment.items())
        return f"{given}{self.home}/bin/wal-rus wal-push %p"

    def push(self, segment):
        return self._job(self.durable, "wal-push", f"pg_wal/{segment}")

    def get(self, segment, target):
        return self._job(True, "wal-fetch", segment, target)

    def backup(self):
        return self._job(self.durable, "backup-push", self.cluster.data, "--full")

    def incremental(self):
        """What wal-g calls a delta backup, on the one before."""
        job = self._job(self.durable, "backup-push", self.cluster.data)
        return replace(job, environment={**job.environment, "WALG_DELTA_MAX_STEPS": "99"})

    def was_incremental(self):
        """Whether the newest backup is."""
        return "_D_" in _output(self._job(True, "backup-list")).splitlines()[-1]

    def restore(self, target):
        return self._job(False, "backup-fetch", target, "LATEST")

    def recovery_settings(self):
        """It leaves them to the operator."""
        given = "".join(f"{name}={value} " for name, value in self.environment.items())
        return {"restore_command": f"{given}{self.home}/bin/wal-rus wal-fetch %f %p", "recovery_target": "immediate"}

    def stored(self):
        """Bytes of backups, without WAL."""
        return _stored(self.garage, f"{self.place}/basebackups_005")

    def _job(self, durable, *words):
        return Job([f"{self.home}/bin/wal-rus", *words], self.environment, self.cluster.data, durable)


class PgBaseBackup:
    """PostgreSQL's own: to a directory, uncompressed, as it is called without options."""

    name = "pg_basebackup"

    def __init__(self, home, cluster):
        self.cluster, self.target = cluster, f"{home}/pg_basebackup"

    def prepare(self):
        pass

    @property
    def version(self):
        return _first_line([f"{self.cluster.bin}/pg_basebackup", "--version"])

    def archive_command(self):
        return "/bin/true"

    def backup(self):
        shutil.rmtree(self.target, ignore_errors=True)
        program = f"{self.cluster.bin}/pg_basebackup"
        return Job([program, "-D", self.target, "-c", "fast", "-d", self.cluster.connection])

    def stored(self):
        return _stored(None, self.target)


class Copy:
    """cp and fsync: what the disk alone takes."""

    name = "cp, fsync"

    def __init__(self, home, cluster):
        self.cluster, self.folder = cluster, f"{home}/copies"
        os.mkdir(self.folder)

    def prepare(self):
        pass

    @property
    def version(self):
        return _first_line(["cp", "--version"])

    def push(self, segment):
        return self._job('cp "$1" "$2" && sync "$2" "$3"', f"{self.cluster.data}/pg_wal/{segment}", f"{self.folder}/{segment}")

    def get(self, segment, target):
        return self._job('cp "$1" "$2"', f"{self.cluster.data}/pg_wal/{segment}", f"{self.cluster.data}/{target}")

    def restore(self, target):
        tree = f"{self.cluster.data}/base"
        return Job(["cp", "-r", tree, target], durable=False)

    def _job(self, script, source, target):
        return Job(["sh", "-c", script, "sh", source, target, self.folder])


def _first_line(words):
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0].strip()


def _output(job):
    environment = {**os.environ, **job.environment}
    return subprocess.run(job.words, cwd=job.cwd, env=environment, capture_output=True, text=True, check=True).stdout


def _stored(garage, place):
    """Bytes of all files of a directory, or of all objects below a prefix."""
    if garage:
        return garage.stored(f"{place}/")
    return sum(os.path.getsize(f"{folder}/{name}") for folder, _, names in os.walk(place) for name in names)
