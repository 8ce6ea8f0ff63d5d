"""Which version of a read model its readers get: a symbolic link that is replaced whole.

The path that readers open, `revenue.db`, is a link to the file of one version, `revenue.v1.db`. SQLite resolves the
link when it opens, so the files that belong to a database (`-wal`, `-shm`) are always those of the version that was
opened, and no reader ever mixes two. A switch makes a new link beside the old one, syncs, renames it over the old one,
syncs: a crash leaves the old version or the new one. Who has the old file open goes on to read it, consistent and no
longer growing, until it opens the path again. Old files are never deleted here.

A renamed database would not do: a reader that opened it by the old name and one that opens it by the new one would not
agree on the name of the write-ahead log.
"""

import os

from ego._errors import StorageError, StoreFormatError
from ego._projections._sqlite_file import sync_directory


def file_of(path: str, version: int) -> str:
    """Where a version lives: `revenue.db` -> `revenue.v2.db`."""
    stem, suffix = os.path.splitext(path)
    return f"{stem}.v{version}{suffix}"


def served(path: str) -> str | None:
    """The file that who opens `path` now would get; `None` where there is nothing yet."""
    try:
        target = os.readlink(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        if not os.path.lexists(path) or os.path.islink(path):
            raise StorageError(f"the read model {path} cannot be looked at: {error}", path=path) from error
        raise StoreFormatError(
            f"{path} is not the link that a read model makes there; give the read model a path that is free", path=path
        ) from error
    return os.path.join(os.path.dirname(path), target)


def serve(path: str, version: int) -> None:
    """Has who opens `path` from now on get that version. Durable when done; waits for the disk."""
    served(path)
    link = f"{path}.switch"
    try:
        if os.path.lexists(link):
            os.unlink(link)
        os.symlink(os.path.basename(file_of(path, version)), link)
        sync_directory(path)
        os.replace(link, path)
        sync_directory(path)
    except OSError as error:
        raise StorageError(f"the read model {path} cannot be switched: {error}", path=path) from error
