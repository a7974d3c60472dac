"""A real S3 server, Garage, and TLS in front of it for those who insist."""

import hashlib
import hmac
import os
import re
import socket
import subprocess
import time
import urllib.parse
import urllib.request

KEY_ID = "GK31c2f218a2e44f485b94239e"
KEY_SECRET = "b892c0665f0ada8a4755dae98baa3b133590e11dae3bcc1f9d769d67f16c3835"
BUCKET = "bench"
REGION = "garage"
# Dies with this program, however it ends.
LEASH = ["setpriv", "--pdeathsig", "KILL"]


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


class Garage:
    """One server with one bucket; as it comes, but for fsync, which is on."""

    def __init__(self, home):
        self.home = home
        self.port, self.rpc, self.admin = free_port(), free_port(), free_port()
        self.binary = f"{home}/bin/garage"
        self.config = f"{home}/garage.toml"
        self.processes = []
        self._write_config()

    def _write_config(self):
        with open(self.config, "w", encoding="utf-8", opener=_private) as file:
            file.write(
                f'metadata_dir = "{self.home}/garage/meta"\n'
                f'data_dir = "{self.home}/garage/data"\n'
                'db_engine = "sqlite"\nreplication_factor = 1\n'
                "metadata_fsync = true\ndata_fsync = true\n"
                f'rpc_bind_addr = "127.0.0.1:{self.rpc}"\nrpc_public_addr = "127.0.0.1:{self.rpc}"\n'
                'rpc_secret = "1799bccfd7411eddcf9ebd316bc1f5287ad12a68094e1c6ac6abde7e6feae1ec"\n'
                f'[s3_api]\ns3_region = "{REGION}"\napi_bind_addr = "127.0.0.1:{self.port}"\n'
                f'[admin]\napi_bind_addr = "127.0.0.1:{self.admin}"\n'
            )

    def start(self):
        log = open(f"{self.home}/garage.log", "ab")
        words = [*LEASH, self.binary, "-c", self.config, "server"]
        self.processes.append(subprocess.Popen(words, stdout=log, stderr=log, env=_quiet()))
        _wait_for_port(self.rpc)
        node = self._cli("node", "id", "-q").strip().split("@")[0]
        self._cli("layout", "assign", "-z", "here", "-c", "50GB", node)
        self._cli("layout", "apply", "--version", "1")
        self._cli("key", "import", "--yes", "-n", "bench", KEY_ID, KEY_SECRET)
        self._cli("bucket", "create", BUCKET)
        self._cli("bucket", "allow", "--read", "--write", "--owner", BUCKET, "--key", KEY_ID)
        _wait_for_port(self.port)
        self._start_tls()

    def _cli(self, *words):
        done = subprocess.run([self.binary, "-c", self.config, *words], capture_output=True, text=True, env=_quiet())
        if done.returncode != 0:
            raise RuntimeError(f"garage {' '.join(words)}: {done.stderr}")
        return done.stdout

    def _start_tls(self):
        """Our own authority, a certificate of it, and stunnel that shows it."""
        self.tls_port, self.ca = free_port(), f"{self.home}/tls/ca.pem"
        os.mkdir(f"{self.home}/tls")
        for words in (
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout ca.key -out ca.pem -subj /CN=bench",
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout s.key -out s.csr -subj /CN=localhost",
            "x509 -req -in s.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out s.pem -extfile names",
        ):
            with open(f"{self.home}/tls/names", "w", encoding="ascii") as file:
                file.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
            subprocess.run(["openssl", *words.split()], cwd=f"{self.home}/tls", check=True, capture_output=True)
        config = f"{self.home}/tls/stunnel.conf"
        with open(config, "w", encoding="ascii") as file:
            file.write(
                "foreground = yes\npid =\ndebug = err\n"
                f"[s3]\naccept = 127.0.0.1:{self.tls_port}\nconnect = 127.0.0.1:{self.port}\n"
                f"cert = {self.home}/tls/s.pem\nkey = {self.home}/tls/s.key\n"
            )
        log = open(f"{self.home}/tls/log", "ab")
        self.processes.append(subprocess.Popen([*LEASH, "stunnel4", config], stdout=log, stderr=log))
        _wait_for_port(self.tls_port)

    @property
    def pids(self):
        return [process.pid for process in self.processes]

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def tls_endpoint(self):
        return f"https://localhost:{self.tls_port}"

    def requests(self):
        """Requests to the S3 side so far, by what they asked for."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found = re.findall(r'^api_s3_request_counter\{api_endpoint="(\w+)"[^}]*\} (\d+)', text, re.MULTILINE)
        return {name: int(count) for name, count in found}

    def stored(self, prefix):
        """Bytes of all objects below a prefix."""
        total, asked = 0, {"list-type": "2", "prefix": prefix}
        while True:
            text = self._get(f"/{BUCKET}", asked)
            total += sum(int(size) for size in re.findall(r"<Size>(\d+)</Size>", text))
            further = re.search(r"<NextContinuationToken>([^<]+)<", text)
            if not further:
                return total
            asked["continuation-token"] = further.group(1)

    def _get(self, path, asked):
        """A signed request (AWS signature version 4) without a body."""
        host, when = f"127.0.0.1:{self.port}", time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        query = "&".join(f"{name}={urllib.parse.quote(value, safe='')}" for name, value in sorted(asked.items()))
        empty, scope = hashlib.sha256(b"").hexdigest(), f"{when[:8]}/{REGION}/s3/aws4_request"
        headers = {"host": host, "x-amz-content-sha256": empty, "x-amz-date": when}
        listed = "".join(f"{name}:{value}\n" for name, value in headers.items())
        canonical = f"GET\n{path}\n{query}\n{listed}\n{';'.join(headers)}\n{empty}"
        key = f"AWS4{KEY_SECRET}".encode()
        for word in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{when}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"):
            key = hmac.new(key, word.encode(), hashlib.sha256).digest()
        headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={KEY_ID}/{scope}, SignedHeaders={';'.join(headers)}, Signature={key.hex()}"
        )
        with urllib.request.urlopen(urllib.request.Request(f"http://{host}{path}?{query}", headers=headers), timeout=60) as answer:
            return answer.read().decode()

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes = []


def environment():
    """What a client needs."""
    return {
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": KEY_SECRET,
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _private(path, flags):
    return os.open(path, flags, 0o600)


def _quiet():
    return {**os.environ, "RUST_LOG": "error"}


def _wait_for_port(port):
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"nothing listens on port {port}")
