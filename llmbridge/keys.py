"""The keys file: API keys by the name of their provider, as an alternative to environment variables.

Only its owner may have access to the file (mode 0600 in a folder of mode 0700); otherwise it is rejected. It is
replaced as a whole, so that a crash leaves the old or the new one, and writers wait for each other, so that no key is
lost.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from llmbridge.errors import ConfigError
from llmbridge.options import warn_caller
from llmbridge.secret import Secret, discreet

__all__ = [
    "KEYS_FILE_VARIABLE",
    "key_if_usable",
    "keys_path",
    "remove_key",
    "replace_file",
    "set_key",
    "stored_key",
    "stored_names",
]

KEYS_FILE_VARIABLE = "LLMBRIDGE_KEYS_FILE"
"""The environment variable with the path of another keys file; the null device means none."""

_LARGEST = 1024 * 1024
_PATIENCE = 10.0  # seconds to wait for another process that writes, which takes milliseconds
_NO_FILE = (FileNotFoundError, NotADirectoryError)

_Signature = tuple[Any, ...]
_warned: set[str] = set()
_read: tuple[_Signature, dict[str, Secret]] | None = None  # the last keys read, and the state of their file


def keys_path() -> str:
    """The path of the keys file, whether it exists or not.

    LLMBRIDGE_KEYS_FILE, or `llmbridge/keys.json` in XDG_CONFIG_HOME, in `~/.config`, on Windows in %APPDATA%.

    Example:
        >>> os.path.basename(keys_path())
        'keys.json'
    """
    return os.path.expanduser(os.environ.get(KEYS_FILE_VARIABLE, "").strip()) or _default_path()


def _default_path() -> str:
    folder = os.environ.get("APPDATA", "") if os.name == "nt" else os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(folder):  # the XDG specification: ignore a relative path
        folder = os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(folder, "llmbridge", "keys.json")


@discreet
def stored_key(provider_name: str) -> Secret | None:
    """The stored key of the provider, or None. Without a keys file it costs one system call.

    Raises:
        ConfigError: The keys file cannot be used: it is not readable, others can read it, it belongs to another user,
            or is not a JSON object of names and keys. Its contents are not quoted.

    Example:
        >>> stored_key("nobody") is None
        True
    """
    return _stored().get(provider_name)


@discreet
def key_if_usable(provider_name: str) -> Secret | None:
    """Like `stored_key`, for an optional key: warns once of a file that cannot be used.

    Example:
        >>> key_if_usable("nobody") is None
        True
    """
    try:
        return stored_key(provider_name)
    except ConfigError as error:
        message = error.message
    if message not in _warned:
        _warned.add(message)
        warn_caller(f"{message} (the request is sent without a key)", UserWarning)
    return None


@discreet
def stored_names() -> list[str]:
    """The names of the providers with stored keys, sorted; raises like `stored_key`."""
    return sorted(_stored())


@discreet
def set_key(name: str, key: str | Secret) -> None:
    """Stores the key of a provider, replacing the previous one.

    Args:
        name: The provider's name.
        key: The key; white space around it is removed.

    Raises:
        ConfigError: The name or the key is invalid, or the file cannot be read or written; it is unchanged then.
    """
    if not isinstance(name, str) or any(mark in name for mark in ":/") or name.split() != [name]:
        raise ConfigError("the provider's name must not be empty or contain a colon, slash or white space")
    secret = key if isinstance(key, Secret) else Secret(key, "the key")
    path = _writable_path()
    _make_folder(os.path.dirname(path))
    with _alone(path):
        _replace(path, {**_load(path), name: secret})


@discreet
def remove_key(name: str) -> bool:
    """Deletes the key of a provider; False if none was stored. Raises like `set_key`."""
    path = _writable_path()
    if not os.path.exists(path):
        return False
    with _alone(path):
        keys = _load(path)
        if name not in keys:
            return False
        _replace(path, {other: key for other, key in keys.items() if other != name})
    return True


# -- reading ----------------------------------------------------------------------------------------------------------


def _stored() -> dict[str, Secret]:
    global _read
    path = keys_path()
    try:
        state = os.stat(path)
    except (*_NO_FILE, PermissionError):  # a folder without access for this user cannot hold the user's keys
        return {}
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from None
    if stat.S_ISCHR(state.st_mode) and os.path.realpath(path) == os.path.realpath(os.devnull):
        return {}
    signature = (path, state.st_mtime_ns, state.st_ctime_ns, state.st_size, state.st_ino, state.st_mode, state.st_uid)
    known = _read
    if known is not None and known[0] == signature:
        return known[1]
    keys = _load(path)
    _read = (signature, keys)
    return keys


def _load(path: str) -> dict[str, Secret]:
    """The keys in the file, after checking that only its owner can read it; empty if it does not exist."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ConfigError(f"the keys file {path} is not a regular file")
        with open(path, "rb") as file:
            _check_owner(path, os.fstat(file.fileno()))
            return _parsed(path, file.read(_LARGEST + 1))
    except _NO_FILE:
        return {}
    except OSError as error:
        raise _unusable(path, error) from None


def _check_owner(path: str, state: os.stat_result) -> None:
    if sys.platform == "win32":  # Windows uses access lists, and the folder is the user's own
        return
    if state.st_uid != os.geteuid():
        raise ConfigError(
            f"the keys file {path} belongs to another user, so its keys are not used: "
            f"name a file of your own in {KEYS_FILE_VARIABLE}"
        )
    if state.st_mode & 0o077:
        import shlex

        raise ConfigError(
            f"other users have access to the keys file {path} (mode {stat.S_IMODE(state.st_mode):04o}), so its keys "
            f"are not used: run chmod 600 {shlex.quote(path)}"
        )


def _parsed(path: str, content: bytes) -> dict[str, Secret]:
    if len(content) > _LARGEST:
        raise ConfigError(f"the keys file {path} is longer than {_LARGEST} bytes")
    try:
        found = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ConfigError(
            f'the keys file {path} must hold a JSON object like {{"openai": "KEY"}}: correct it, or delete it '
            "and set the keys again with llmbridge keys set"
        )
    # An error names a value by its place, since its name may be a key put on the wrong side.
    return {
        name: Secret(value, f"value {place} in the keys file {path}")
        for place, (name, value) in enumerate(found.items(), 1)
    }


def _unusable(path: str, error: Exception) -> ConfigError:
    return ConfigError(f"the keys file {path} cannot be used: {getattr(error, 'strerror', None) or error}")


# -- writing ----------------------------------------------------------------------------------------------------------


def _writable_path() -> str:
    """The real path of the file: replacing a symbolic link would cut it off from its target."""
    path = keys_path()
    if path == os.devnull:
        raise ConfigError(f"{KEYS_FILE_VARIABLE} is {os.devnull}, where keys cannot be kept")
    if not os.path.isabs(path) and not os.environ.get(KEYS_FILE_VARIABLE, "").strip():
        raise ConfigError(f"there is no home folder to keep keys in: set {KEYS_FILE_VARIABLE} to the path of a file")
    return os.path.realpath(path)


def _make_folder(folder: str) -> None:
    """Makes the folder, closed to others if it is llmbridge's own: other folders are shared with other files."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        own = os.path.realpath(os.path.dirname(_default_path()))
        if folder == own and stat.S_IMODE(os.stat(folder).st_mode) & 0o077:
            os.chmod(folder, 0o700)
    except OSError as error:
        raise _unusable(folder, error) from None


def _replace(path: str, keys: Mapping[str, Secret]) -> None:
    try:
        replace_file(path, json.dumps({name: keys[name].reveal() for name in sorted(keys)}, indent=2) + "\n")
    except OSError as error:
        raise _unusable(path, error) from None


def replace_file(path: str, content: str) -> None:
    """Replaces a file, as a whole or not at all, by one that only its owner can read.

    Raises:
        OSError: It cannot be written; the old file is unchanged.
    """
    import tempfile

    path = os.path.realpath(path)  # replacing a symbolic link would cut it off from its target
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".llmbridge-")  # of mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(os.path.dirname(path))


def _sync_folder(folder: str) -> None:
    """Writes the new name to the disk too; not every system can do that for a folder."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _alone(path: str) -> Iterator[None]:
    """Keeps other processes and threads from changing the file.

    The lock is on another, permanent file beside it, since the keys file is a new one after each change.
    """
    lock = f"{path}.lock"
    try:
        import fcntl
    except ImportError:
        with _exclusive_file(lock):
            yield
        return
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unusable(lock, error) from None
    try:
        _wait_for(lock, "", lambda: fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB), BlockingIOError)
        yield
    finally:
        os.close(descriptor)  # frees the lock, as the end of the process does


@contextmanager
def _exclusive_file(lock: str) -> Iterator[None]:
    """The same on systems without file locks: creating the file takes the lock."""

    def create() -> None:
        os.close(os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))

    # Windows raises this for a file that is about to vanish.
    busy = (FileExistsError, PermissionError) if os.name == "nt" else (FileExistsError,)
    _wait_for(lock, f"; if none is, delete {lock}", create, *busy)
    try:
        yield
    finally:
        with suppress(OSError):
            os.unlink(lock)


def _wait_for(lock: str, advice: str, take: Callable[[], None], *busy: type[OSError]) -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            take()
        except busy:
            if time.monotonic() > end:
                raise ConfigError(f"another process has been changing the keys file for too long{advice}") from None
            time.sleep(0.01)
        except OSError as error:
            raise _unusable(lock, error) from None
        else:
            return
