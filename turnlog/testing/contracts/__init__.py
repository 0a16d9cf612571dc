"""What storage promises, as classes of tests to inherit: one for each kind of recorder, and one for views.

The inheriting class's module gives the fixture ``recorder`` (an empty one), for ``ViewsContract`` the fixture
``backend``, for ``StoredRowsContract`` also ``damage``. What ``eventsourcing`` asks of a recorder is in library.py.
"""

from turnlog.testing.contracts.appending import AppendContract
from turnlog.testing.contracts.keeping import KeysContract, TwoTenantsContract
from turnlog.testing.contracts.racing import LockedContract, UnlockedContract
from turnlog.testing.contracts.reading import ReadContract
from turnlog.testing.contracts.searching import SearchContract
from turnlog.testing.contracts.stored_rows import Damage, StoredRowsContract
from turnlog.testing.contracts.views import ViewsContract

__all__ = [
    "AppendContract",
    "Damage",
    "KeysContract",
    "LockedContract",
    "ReadContract",
    "RecorderContract",
    "SearchContract",
    "StoredRowsContract",
    "TwoTenantsContract",
    "UnlockedContract",
    "ViewsContract",
]


class RecorderContract(AppendContract, ReadContract, KeysContract):
    """What every recorder promises, see turnlog/domain/recorder.py."""
