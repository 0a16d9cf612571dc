"""What an error of the driver's means to an append: taken, undone, broken, or not known."""

from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConnectionFailure,
    DuplicateKeyError,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
    WTimeoutError,
)

from turnlog.adapters.attempt import Broken, Lost, Taken, Undone
from turnlog.adapters.mongodb.documents import Document

UNKNOWN = "UnknownTransactionCommitResult"
_TRANSIENT = "TransientTransactionError"
_DUPLICATE = 11000
_NETWORK = (ConnectionFailure, WTimeoutError, WriteConcernError, ExecutionTimeout)


def told(error: BaseException) -> BaseException:
    """Return what an error of the driver's inside an append means to it; any other as it is."""
    if not isinstance(error, PyMongoError):
        return error
    if is_duplicate(error):
        return _caused(Undone() if of_place(error) else Taken(), error)
    if error.has_error_label(UNKNOWN):
        return _caused(Lost(), error)
    if error.has_error_label(_TRANSIENT):
        return _caused(Broken() if isinstance(error, AutoReconnect) else Undone(), error)
    return error


def told_of_one(error: BaseException) -> BaseException:
    """As ``told``, of a statement that is no part of a transaction: where the connection broke, it may be done."""
    if isinstance(error, ServerSelectionTimeoutError):
        return _caused(Broken(), error)
    if isinstance(error, _NETWORK):
        return _caused(Lost(), error)
    return told(error)


def is_duplicate(error: PyMongoError) -> bool:
    """Return whether a unique index refused it."""
    return isinstance(error, DuplicateKeyError) or bool(_refused(error))


def of_place(error: PyMongoError) -> bool:
    """Return whether it was the number of a document that was taken, and not what it is to hold."""
    details = _refused(error) or (error.details if isinstance(error, OperationFailure) else None) or {}
    return list(details.get("keyPattern", ())) == ["_id"] or "index: _id_" in str(details.get("errmsg", ""))


def _refused(error: PyMongoError) -> Document | None:
    """Return what a unique index says of the first of several documents that it refused."""
    if not isinstance(error, BulkWriteError):
        return None
    found = (one for one in error.details.get("writeErrors", ()) if one.get("code") == _DUPLICATE)
    return next(found, None)


def _caused(raised: Exception, error: BaseException) -> Exception:
    raised.__cause__ = error
    return raised
