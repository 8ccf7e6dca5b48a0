"""Files that appear whole or not at all, and hashes that name what is kept in them."""

import errno
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

log = logging.getLogger(__name__)

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Inside, the error of a full or broken disk, which names no file, names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside, or until the process ends anyhow, `locked` of this folder raises OSError elsewhere.

    Windows and some network file systems have no such lock, which a warning says.
    """
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)  # also of a pipe, without waiting
    try:
        try:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            reason = f"another process is at work in {folder}; wait, or name another folder"
            raise OSError(reason) from error
        except (ImportError, OSError) as error:
            log.warning("%s cannot be locked (%s): start nothing else in it", folder, error)
        yield
    finally:
        os.close(handle)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name to write to, which becomes `path` once everything is on the disk.

    If anything fails (a full disk, an interrupt) nothing is left, and an older `path` stays.
    """
    if path.exists() and not path.is_file():  # /dev/null is not to become a file
        what = "a folder" if path.is_dir() else "no regular file"
        raise IsADirectoryError(f"cannot write {path}: it is {what}")
    partial = path.with_name(f".{path.name}{unfinished()}")
    try:
        with named(path):
            yield partial
            sync(partial)
            partial.replace(path)
            sync(path.parent)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        hidden = error.__context__
        if isinstance(error, RuntimeError) and isinstance(hidden, OSError):
            raise OSError(hidden.errno, hidden.strerror, str(path)) from error  # by torch.save
        raise


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write files into, which all move to `folder` once they are on the disk.

    If anything fails while they are written nothing is left, and an older `folder` stays as it was.
    Older files of other names stay in any case.
    """
    there = next(place for place in (folder, *folder.parents) if place.exists())
    with named(folder), tempfile.TemporaryDirectory(unfinished(), ".", there) as name:
        yield Path(name)
        files = sorted(Path(name).iterdir())
        if blocked := [file.name for file in files if (folder / file.name).is_dir()]:
            raise IsADirectoryError(f"cannot write {folder / blocked[0]}: it is a folder")
        for file in files:
            sync(file)
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            file.replace(folder / file.name)
        sync(folder)


def unfinished() -> str:
    """The end of a name that is being written: it tells this process and its machine."""
    return f".{os.getpid()}@{platform.node()}.partial"


PARTIAL = re.compile(r"\..+\.(\d+)@(.*)\.partial")


def remove_leftovers(folder: Path) -> None:
    """Delete what writers left in the folder, not below it, that were killed while they wrote.

    What a living process writes stays, and so do other names and what other machines write; on
    Windows, where a process cannot be asked whether it lives, everything does.
    """
    for partial in folder.glob(".*.partial"):
        match = PARTIAL.fullmatch(partial.name)
        if match is None or match[2] != platform.node() or _lives(int(match[1])):
            continue
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            with suppress(OSError):  # gone, or somebody else's
                partial.unlink()


def _lives(process: int) -> bool:
    """Is there a process of this number? Windows: perhaps, as signal 0 would end it there."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except PermissionError:  # somebody else's
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def sync(path: Path) -> None:
    """Put a file, or the names in a folder, on the disk.

    A rename outlives a power cut only after its folder was synced.
    """
    if path.is_dir() and os.name != "posix":  # elsewhere folders cannot be opened
        return
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest(value: object) -> str:
    """12 hex digits; the same for equal values of what JSON knows."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


def code_version(*paths: str | Path) -> str:
    """12 hex digits of the contents of source files."""
    return hashlib.sha256(b"".join(Path(path).read_bytes() for path in paths)).hexdigest()[:12]
