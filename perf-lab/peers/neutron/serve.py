"""The API's peer: a neutron-server with Keystone, on a durable MariaDB, all on loopback.

serve.py FOLDER PASSWORD puts databases, keys and logs in the folder, prints one line of JSON (where both are, and the process
of each), serves until its standard input ends, and ends what it started."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

BIN = os.path.dirname(sys.executable)
SERVICE_PASSWORD = "of-the-service"
DATABASE_PASSWORD = "of-the-database"
WAIT_S = 120

KEYSTONE = """
[DEFAULT]
log_file = {folder}/keystone.log
use_stderr = false
[database]
connection = {keystone_database}
[token]
provider = fernet
expiration = 86400
[fernet_tokens]
key_repository = {folder}/fernet-keys
[credential]
key_repository = {folder}/credential-keys
[cache]
enabled = true
backend = dogpile.cache.memory
[identity]
password_hash_rounds = 4
[oslo_policy]
enforce_scope = true
enforce_new_defaults = true
"""

NEUTRON = """
[DEFAULT]
core_plugin = ml2
service_plugins = router,qos,trunk,port_forwarding,segments,auto_allocate,flavors,metering,network_ip_availability
auth_strategy = keystone
transport_url = fake://
state_path = {folder}
log_file = {folder}/neutron.log
use_stderr = false
notify_nova_on_port_status_changes = false
notify_nova_on_port_data_changes = false
api_paste_config = {prefix}/etc/neutron/api-paste.ini
rpc_workers = 1
api_workers = 2
[ml2]
type_drivers = flat,vlan,vxlan
tenant_network_types = vxlan
mechanism_drivers = openvswitch
extension_drivers = port_security,qos
[ml2_type_vxlan]
vni_ranges = 1:100000
[securitygroup]
firewall_driver = noop
[database]
connection = {neutron_database}
[oslo_concurrency]
lock_path = {folder}/lock
[oslo_policy]
enforce_scope = true
enforce_new_defaults = true
[keystone_authtoken]
auth_type = password
auth_url = {keystone}
www_authenticate_uri = {keystone}
username = neutron
password = {service_password}
project_name = service
user_domain_id = default
project_domain_id = default
[quotas]
default_quota = -1
quota_network = -1
quota_subnet = -1
quota_port = -1
quota_security_group = -1
quota_security_group_rule = -1
"""


class Peer:
    """Processes by name, the last one started ends first."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = {}

    def start(self, name, *command, environment=None):
        log = open(f"{self.folder}/{name}.out", "ab")
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
        self.processes[name] = process

    def alive(self, name):
        if self.processes[name].poll() is not None:
            sys.exit(f"{name} ended: see {self.folder}/{name}.out")

    def end(self):
        for process in reversed(list(self.processes.values())):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def run(*command, **more):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    if done.returncode:
        sys.exit(f"{command[0]}: {done.stdout[-2000:]}")


def wait(peer, name, ready):
    end = time.monotonic() + WAIT_S
    while not ready():
        peer.alive(name)
        if time.monotonic() > end:
            sys.exit(f"{name} is not ready after {WAIT_S} s: see {peer.folder}")
        time.sleep(0.2)


def port_free():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answers(url):
    try:
        urllib.request.urlopen(url, timeout=30).read()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def mariadb(peer):
    folder, port = f"{peer.folder}/mariadb", port_free()
    run("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={folder}", "--auth-root-authentication-method=normal")
    sock = f"{peer.folder}/mariadb.sock"
    peer.start(
        "mariadb", "/usr/sbin/mariadbd", "--no-defaults", "--user=root", f"--datadir={folder}", f"--socket={sock}", f"--port={port}",
        "--bind-address=127.0.0.1", "--max-connections=500", "--innodb-buffer-pool-size=512M", "--character-set-server=utf8mb4",
        "--innodb-flush-log-at-trx-commit=1",
    )  # fmt: skip
    client = ["mariadb", "--no-defaults", "--protocol=socket", "-S", sock, "-uroot", "-e"]
    wait(peer, "mariadb", lambda: subprocess.run([*client, "select 1"], capture_output=True).returncode == 0)
    urls = []
    for name in ("keystone", "neutron"):
        run(
            *client,
            f"create database {name} character set utf8mb3; "
            f"create user '{name}'@'127.0.0.1' identified by '{DATABASE_PASSWORD}'; grant all on {name}.* to '{name}'@'127.0.0.1'",
        )
        urls.append(f"mysql+pymysql://{name}:{DATABASE_PASSWORD}@127.0.0.1:{port}/{name}")
    return urls


def uwsgi(peer, name, port, module, environment, *more):
    """Two processes with a thread each, as devstack runs both on two cores."""
    peer.start(
        name, f"{BIN}/uwsgi", "--http-socket", f"127.0.0.1:{port}", "--module", module, "--master", "--die-on-term", "--processes", "2",
        "--threads", "1", "--lazy-apps", "--enable-threads", "--need-app", "--buffer-size", "65535", "--thunder-lock",
        "--add-header", "Connection: close", "--disable-logging", *more,
        environment={**os.environ, **environment},
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    wait(peer, name, lambda: answers(url))
    return url


def keystone(peer, password, database):
    folder = peer.folder
    with open(f"{folder}/keystone.conf", "w") as file:
        file.write(KEYSTONE.format(folder=folder, keystone_database=database))
    manage = (f"{BIN}/keystone-manage", "--config-file", f"{folder}/keystone.conf")
    run(*manage, "db_sync")
    owner = ("--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid()))
    run(*manage, "fernet_setup", *owner)
    run(*manage, "credential_setup", *owner)
    # The middleware in neutron-server finds Keystone by the catalogue.
    port = port_free()
    url = f"http://127.0.0.1:{port}/v3"
    urls = ("--bootstrap-region-id", "RegionOne", "--bootstrap-admin-url", url)
    urls += ("--bootstrap-public-url", url, "--bootstrap-internal-url", url)
    names = ("--bootstrap-username", "admin", "--bootstrap-project-name", "admin", "--bootstrap-role-name", "admin")
    run(*manage, "bootstrap", "--bootstrap-password", password, *names, *urls)
    environment = {"OS_KEYSTONE_CONFIG_DIR": folder, "OS_KEYSTONE_CONFIG_FILES": "keystone.conf"}
    uwsgi(peer, "keystone", port, "keystone.wsgi.api:application", environment, "--manage-script-name")
    service_user(url, password)
    return url


def service_user(url, password):
    """The user that neutron-server asks Keystone as."""

    def call(method, path, body, token=None):
        headers = {"Content-Type": "application/json", **({"X-Auth-Token": token} if token else {})}
        data = json.dumps(body).encode() if body else None
        with urllib.request.urlopen(urllib.request.Request(url + path, data, headers, method=method), timeout=60) as answer:
            text = answer.read()
            return answer.headers, json.loads(text) if text else None

    domain = {"id": "default"}
    user = {"name": "admin", "domain": domain, "password": password}
    identity = {"methods": ["password"], "password": {"user": user}}
    scope = {"project": {"name": "admin", "domain": domain}}
    token = call("POST", "/auth/tokens", {"auth": {"identity": identity, "scope": scope}})[0]["X-Subject-Token"]
    project = {"name": "service", "domain_id": "default"}
    project = call("POST", "/projects", {"project": project}, token)[1]["project"]["id"]
    user = {"name": "neutron", "domain_id": "default", "password": SERVICE_PASSWORD}
    user = call("POST", "/users", {"user": user}, token)[1]["user"]["id"]
    for role in call("GET", "/roles", None, token)[1]["roles"]:
        if role["name"] in ("admin", "service"):
            call("PUT", f"/projects/{project}/users/{user}/roles/{role['id']}", None, token)


def neutron(peer, identity, database):
    folder = peer.folder
    with open(f"{folder}/neutron.conf", "w") as file:
        text = NEUTRON.format(
            folder=folder,
            prefix=sys.prefix,
            neutron_database=database,
            keystone=identity.removesuffix("/v3"),
            service_password=SERVICE_PASSWORD,
        )
        file.write(text)
    run(f"{BIN}/neutron-db-manage", "--config-file", f"{folder}/neutron.conf", "upgrade", "heads")
    environment = {"OS_NEUTRON_CONFIG_DIR": folder, "OS_NEUTRON_CONFIG_FILES": "neutron.conf"}
    return uwsgi(peer, "neutron", port_free(), "neutron.wsgi.api:application", environment)


def main(folder, password):
    peer = Peer(folder)
    try:
        keystone_database, neutron_database = mariadb(peer)
        identity = keystone(peer, password, keystone_database)
        network = neutron(peer, identity, neutron_database)
        processes = {name: process.pid for name, process in peer.processes.items()}
        print(json.dumps({"identity": identity, "network": network, "processes": processes}), flush=True)
        sys.stdin.read()
    finally:
        peer.end()


main(*sys.argv[1:])
