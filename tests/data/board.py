"""A board that fetches, as far as the protocol goes: version, list, difference, fetch, delete, restart.

    python3 board.py URL DIRECTORY

It speaks as small boards do: HTTP/1.0, a connection for each request, no header but Host, read to the
end, and any answer but 200 ends the attempt. Each attempt's end is told in a line. It never ends by
itself, unless it was given what was not listed: then with 3.
"""

import hashlib
import json
import os
import socket
import sys
import time
from urllib.parse import urlsplit


class Refused(Exception):
    pass


def get(url, path):
    parts = urlsplit(url)
    request = f"GET {parts.path}{path} HTTP/1.0\r\nHost: {parts.hostname}\r\n\r\n"
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as connection:
        connection.sendall(request.encode())
        answer = b"".join(iter(lambda: connection.recv(536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding" in head.lower():
        sys.exit("it cannot read pieces")
    if head.split()[1:2] != [b"200"]:
        raise Refused(body.decode())
    return body


def known(directory):
    """The version that it has, and the files: path by checksum."""
    try:
        with open(os.path.join(directory, ".files")) as file:
            version, files = json.load(file)
            return version, files
    except FileNotFoundError:
        return None, {}


def write(directory, path, content):
    path = os.path.join(directory, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".new", "wb") as file:
        file.write(content)
    os.replace(path + ".new", path)


def update(url, directory):
    version, files = known(directory)
    if json.loads(get(url, "/files/version"))["version"] == version:
        return False
    listing = json.loads(get(url, "/files"))
    listed = {file["checksum"]: file["path"] for file in listing["files"]}
    fetched = {}
    for checksum, path in listed.items():
        if checksum not in files:
            content = get(url, "/file/" + checksum)
            if hashlib.sha1(content + path.encode()).hexdigest() != checksum:
                print(f"{path} is not what was listed", flush=True)
                sys.exit(3)
            fetched[path] = content
    # All of it is here: now the files change, and only now.
    for path in set(files.values()) - set(listed.values()):
        os.remove(os.path.join(directory, path))
    for path, content in fetched.items():
        write(directory, path, content)
    write(directory, ".files", json.dumps([listing["version"], listed]).encode())
    return True


def main():
    url, directory = sys.argv[1:]
    while True:
        try:
            if update(url, directory):
                print("updated", flush=True)
                # A restart: it knows nothing but what it has written down.
                os.execv(sys.executable, [sys.executable, *sys.argv])
        except (Refused, OSError) as error:
            print(f"again: {error}", flush=True)
        time.sleep(0.01)


main()
