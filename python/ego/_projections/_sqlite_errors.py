"""Whose fault an error of SQLite is: the disk's, or that of who wrote the statement.

What the same statement would meet again however long one waits (a constraint, a table that is not there) is the
handler's. What may be over in a moment, or is for the operator to mend, is the store's.
"""

from typing import Final

from ego._errors import StorageError, StoreFullError

FULL: Final = 13
OF_THE_STORE: Final = {
    5: "another connection holds its write lock; only the projection may write it",
    7: "there is no memory",
    8: "it may only be read",
    10: "the disk failed",
    11: "its content is damaged; delete it and let the projection build it again",
    FULL: "the disk is full; nothing of the transaction was written",
    14: "it cannot be opened",
    15: "its locks cannot be had",
    23: "it may not be used",
    26: "it is no SQLite database",
}
"""Primary result codes, and what each means to an operator. SQLITE_LOCKED (6) is not here: without a shared cache it
is a conflict of one connection with itself, so the handler's."""


def as_store_error(error: BaseException, file: str) -> StorageError | None:
    """What to raise in its place where the store is to blame, else `None`."""
    code = getattr(error, "sqlite_errorcode", None)
    if not isinstance(code, int) or (meaning := OF_THE_STORE.get(code & 0xFF)) is None:
        return None
    cls = StoreFullError if code & 0xFF == FULL else StorageError
    return cls(f"the read model {file}: {meaning} ({error})", path=file)
