"""``eventsourcing``'s recorder contracts on MongoDB: tracking recorder, and process recorder, which is all of it."""

from typing import Any

from eventsourcing.persistence import IntegrityError, ProcessRecorder, Tracking, TrackingRecorder
from pymongo.errors import DuplicateKeyError

from turnlog.adapters.library import of_the_library
from turnlog.adapters.mongodb import layout
from turnlog.adapters.mongodb.client import Client, Session
from turnlog.adapters.mongodb.recorders import MongoDBApplicationRecorder


class MongoDBTrackingRecorder(TrackingRecorder):
    """How far a reader of some application has come, one document an application."""

    def __init__(self, client: Client, *, tracking_table: str = "notification_tracking") -> None:
        self.client = client
        self.tracking_table = tracking_table

    @of_the_library
    def create_table(self) -> None:
        """Create what is missing; several processes may do so at once."""
        layout.create(self.client, self.tracking_table)

    @of_the_library
    def insert_tracking(self, tracking: Tracking) -> None:
        """Record that ``tracking`` was reached.

        Raises:
            IntegrityError: it was reached before.
        """
        self.client.require_writable()
        with self.client.translating():
            self._insert_tracking(None, tracking)

    def _insert_tracking(self, session: Session | None, tracking: Tracking) -> None:
        name, reached = tracking.application_name, tracking.notification_id
        known = self.client.collection(self.tracking_table)
        # one that is not below is not found, and its name is taken
        below = {"_id": name, "notification_id": {"$lt": reached}}
        try:
            known.update_one(below, {"$set": {"notification_id": reached}}, upsert=True, session=session)
        except DuplicateKeyError as error:
            raise IntegrityError(f"{tracking} is not above what was recorded") from error

    @of_the_library
    def max_tracking_id(self, application_name: str) -> int | None:
        """Return the position recorded for this application."""
        with self.client.translating():
            found = self.client.collection(self.tracking_table).find_one({"_id": application_name})
        return None if found is None else int(found["notification_id"])


class MongoDBProcessRecorder(MongoDBTrackingRecorder, MongoDBApplicationRecorder, ProcessRecorder):
    """Events and tracking, written in one transaction."""

    def __init__(self, client: Client, *, tracking_table: str = "notification_tracking", **options: Any) -> None:
        MongoDBTrackingRecorder.__init__(self, client, tracking_table=tracking_table)
        MongoDBApplicationRecorder.__init__(self, client, **options)

    @of_the_library
    def create_table(self) -> None:
        """Create what is missing."""
        layout.create_log(self.client, self.events)
        layout.create(self.client, self.tracking_table)

    def _also(self, session: Session | None, **kwargs: Any) -> None:
        tracking = kwargs.get("tracking")
        if tracking is not None:
            self._insert_tracking(session, tracking)
