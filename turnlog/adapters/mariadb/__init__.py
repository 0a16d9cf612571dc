"""MariaDB and MySQL: start reading with `recorder.py`. This is also ``PERSISTENCE_MODULE=turnlog.adapters.mariadb``."""

from turnlog.adapters.mariadb.factory import MariaDBFactory
from turnlog.adapters.mariadb.recorder import MariaDBRecorder
from turnlog.adapters.mariadb.recorders import MariaDBAggregateRecorder, MariaDBApplicationRecorder
from turnlog.adapters.mariadb.tracking import MariaDBProcessRecorder, MariaDBTrackingRecorder

__all__ = [
    "MariaDBAggregateRecorder",
    "MariaDBApplicationRecorder",
    "MariaDBFactory",
    "MariaDBProcessRecorder",
    "MariaDBRecorder",
    "MariaDBTrackingRecorder",
]
