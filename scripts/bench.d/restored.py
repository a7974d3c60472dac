"""What somebody restored: whether it is what there was, and what damage does to it."""

import os
import random
import subprocess
import time

from cluster import ANSWER, IDLE_COMMAND, PAGE
from measure import Failed, tail


class Restored:
    """A directory that a program restored the cluster to."""

    def __init__(self, cluster, directory):
        self.cluster, self.directory = cluster, directory

    def must_equal(self, program):
        """Pgbench's tables and indexes, byte by byte: nobody has changed them since the backup."""
        for name in self.cluster.table_files():
            compared = subprocess.run(["cmp", f"{self.cluster.data}/{name}", f"{self.directory}/{name}"], capture_output=True, text=True)
            if compared.returncode != 0:
                raise Failed(f"{program.name} restored another {name}: {compared.stdout or compared.stderr}")

    def must_answer(self, program, expected):
        """A server recovers on it, and answers as the original did."""
        log, port = f"{self.cluster.home}/restored.log", 5433
        settings = {
            # Never into an archive that others measure.
            "archive_mode": "off",
            "archive_command": IDLE_COMMAND,
            "port": port,
            "recovery_target_action": "promote",
            **getattr(program, "recovery_settings", dict)(),
        }
        with open(f"{self.directory}/recovery.signal", "a", encoding="ascii"):
            pass
        with open(f"{self.directory}/postgresql.auto.conf", "a", encoding="utf-8") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        environment = {**os.environ, **getattr(program, "environment", {})}
        self._control(environment, "-l", log, "-t", "300", "start")
        try:
            connection = f"host={self.cluster.home} port={port} user=postgres dbname=postgres"
            for _ in range(600):
                if self.cluster.sql("select pg_is_in_recovery()", connection) == "f":
                    break
                time.sleep(0.1)
            answer = self.cluster.sql(ANSWER, connection)
            if answer != expected:
                raise Failed(f"a server on what {program.name} restored answers {answer}, not {expected}")
        finally:
            self._control(environment, "-m", "immediate", "stop")

    def _control(self, environment, *words):
        log = f"{self.cluster.home}/restored-control.log"
        with open(log, "ab") as out:
            words = [f"{self.cluster.bin}/pg_ctl", "-D", self.directory, "-w", *words]
            status = subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False).returncode
        if status != 0:
            raise Failed(f"pg_ctl {words[-1]} on a restored cluster\n{tail(log)}\n{tail(f'{self.cluster.home}/restored.log')}")

    def damage(self, share):
        """Writes something else into so large a share of the tables' and indexes' pages, at random."""
        for name in self.cluster.table_files():
            with open(f"{self.directory}/{name}", "r+b") as file:
                pages = file.seek(0, os.SEEK_END) // PAGE
                for page in random.sample(range(pages), round(pages * share)):
                    file.seek(page * PAGE + PAGE // 2)
                    file.write(random.randbytes(64))
