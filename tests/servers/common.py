"""What the Python servers have in common."""

import os

root = os.environ["ROOT"]
port = int(os.environ["PORT"])
idle = int(os.environ["IDLE"])
account = os.environ["ACCOUNT"]
password = os.environ["PASSWORD"]
# None: unencrypted.
certificate = os.environ.get("CERTIFICATE")
key = os.environ.get("KEY")
# TLS 1.3 and nothing older.
newer = os.environ.get("TLS") == "1.3"


def become_nobody():
    """Root would be let in everywhere."""
    if "RUN_AS" in os.environ:
        user = int(os.environ["RUN_AS"])
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
        os.umask(0o022)
