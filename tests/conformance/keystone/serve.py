"""A Keystone on loopback: serve.py FOLDER PASSWORD makes its database, keys, administrator and catalogue in the folder, prints
its address (with /v3) and serves until it is ended. A port is taken first, so that the catalogue can name it."""

import os
import socket
import subprocess
import sys

CONFIG = """
[DEFAULT]
log_file = {folder}/keystone.log
use_stderr = false
[database]
connection = sqlite:///{folder}/keystone.sqlite
[token]
provider = fernet
[fernet_tokens]
key_repository = {folder}/fernet-keys
[credential]
key_repository = {folder}/credential-keys
[identity]
password_hash_rounds = 4
[oslo_policy]
enforce_scope = true
enforce_new_defaults = true
"""


def manage(folder, *words):
    program = os.path.join(os.path.dirname(sys.executable), "keystone-manage")
    subprocess.run([program, "--config-file", f"{folder}/keystone.conf", *words], check=True, stdout=sys.stderr)


def main(folder, password):
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v3"
    with open(f"{folder}/keystone.conf", "w") as file:
        file.write(CONFIG.format(folder=folder))
    manage(folder, "db_sync")
    manage(folder, "fernet_setup", "--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid()))
    manage(folder, "credential_setup", "--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid()))
    named = ("--bootstrap-username", "admin", "--bootstrap-project-name", "admin", "--bootstrap-region-id", "RegionOne")
    urls = ("--bootstrap-admin-url", url, "--bootstrap-public-url", url, "--bootstrap-internal-url", url)
    manage(folder, "bootstrap", "--bootstrap-password", password, *named, *urls)
    os.environ["OS_KEYSTONE_CONFIG_DIR"] = folder
    os.environ["OS_KEYSTONE_CONFIG_FILES"] = "keystone.conf"
    # Keystone reads the command line for options of its own.
    del sys.argv[1:]
    from keystone.wsgi.api import application
    from waitress import serve

    # From here on whoever connects is answered, if a little later.
    listener.listen(128)
    print(url, flush=True)
    # One request at a time: SQLite would refuse the second writer.
    serve(application, sockets=[listener], threads=1)


main(*sys.argv[1:])
