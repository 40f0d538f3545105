"""AUTH -> who may use the server. A file of hashes has a line `name:hash` for each person, made by

    python -m vlm.serving.accounts

which asks for a password and prints its hash: scrypt (RFC 7914), with a salt of its own.
"""

import argparse
import base64
import binascii
import getpass
import hashlib
import hmac
import os
import secrets
from pathlib import Path
from threading import Lock

from vlm.errors import UserError
from vlm.serving.limits import Limit
from vlm.terminal import command

SCHEME = "scrypt"
COST, BLOCK, PARALLEL = 2**14, 8, 1  # 16 MB and about 50 ms a password
REMEMBERED = 1_000  # right passwords, so that not every picture of the page costs a hash
GUESSES_A_MINUTE = 10


def hash_password(password: str, salt: bytes | None = None) -> str:
    salt = salt or secrets.token_bytes(16)
    digest = hashlib.scrypt(password.encode(), salt=salt, n=COST, r=BLOCK, p=PARALLEL)
    return "$".join((SCHEME, salt.hex(), digest.hex()))


class Accounts:
    """`hashes`: name -> hash. Whoever sends a header `Authorization` with a right name and password is known."""

    def __init__(self, hashes: dict[str, str]) -> None:
        self._hashes = hashes
        # Checked for unknown names, so that the time does not tell which are known
        self._nobodys = hash_password("")
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, str] = {}
        self._guesses = Limit("wrong passwords", GUESSES_A_MINUTE)
        self._lock = Lock()

    def user(self, authorization: str, address: str) -> str | None:
        """The name in a header `Basic ...` or `Bearer name:password`, if the password is right. Raises TryLater where too
        many wrong ones came from the address."""
        seen = hmac.digest(self._key, authorization.encode("utf-8", "replace"), "sha256")
        with self._lock:
            if seen in self._known:
                return self._known[seen]
        name, password = _name_and_password(authorization)
        if not name:
            return None
        self._guesses.check(address)
        wanted = self._hashes.get(name, self._nobodys)
        right = hmac.compare_digest(hash_password(password, bytes.fromhex(wanted.split("$")[1])), wanted)
        if not right or name not in self._hashes:
            self._guesses.charge(address, 1)
            return None
        with self._lock:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[seen] = name
        return name


def _name_and_password(authorization: str) -> tuple[str, str]:
    kind, _, value = authorization.partition(" ")
    if kind.lower() == "basic":
        try:
            value = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return "", ""
    elif kind.lower() != "bearer":
        return "", ""
    name, _, password = value.partition(":")
    return name, password


def read_accounts(given: str) -> Accounts:
    """`user:password`, or the path of a file of hashes. Raises UserError."""
    path = Path(given)
    if ":" in given and not os.path.isfile(given):  # False, and no error, where a name is too long
        name, _, password = given.partition(":")
        if not name or not password:
            raise UserError("AUTH must be user:password, with a name and a password, or a file of hashes.")
        return Accounts({name: hash_password(password)})
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise UserError(
            "AUTH is neither user:password nor a file of hashes that can be read. "
            "Make a line of it with python -m vlm.serving.accounts."
        ) from problem
    hashes = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, hashed = line.strip().partition(":")
        if not name or not _is_hash(hashed):
            raise UserError(
                f"Line {number} of the file that AUTH names is not name:hash. Make one with python -m vlm.serving.accounts."
            )
        hashes[name] = hashed
    if not hashes:
        raise UserError("The file that AUTH names is empty. Add a line with python -m vlm.serving.accounts.")
    return Accounts(hashes)


def _is_hash(text: str) -> bool:
    scheme, _, rest = text.partition("$")
    salt, _, digest = rest.partition("$")
    try:
        return scheme == SCHEME and len(bytes.fromhex(salt)) >= 8 and len(bytes.fromhex(digest)) == 64
    except ValueError:
        return False


def account_line(name: str, password: str) -> str:
    """Raises UserError for what `read_accounts` would not read as it is meant, and for no password."""
    if not name or ":" in name or name.startswith("#") or not password:
        raise UserError("Please give a name, without a colon and with no # before it, and a password.")
    return f"{name}:{hash_password(password)}"


@command("accounts")
def main() -> None:
    argparse.ArgumentParser(
        prog="python -m vlm.serving.accounts",
        description="Ask for a name and a password, and print the line for the file that AUTH names.",
    ).parse_args()
    try:
        print(account_line(input("Name: ").strip(), getpass.getpass()))
    except EOFError:
        raise UserError("Please type a name and a password; they cannot come through a pipe.") from None


if __name__ == "__main__":
    main()
