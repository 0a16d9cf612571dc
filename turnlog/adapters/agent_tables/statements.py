"""The statements that write the tables, as text for the driver."""

from turnlog.adapters.agent_tables.layout import Layout
from turnlog.adapters.wording import Wording


class Statements:
    """Statements about the four tables under their chosen names."""

    def __init__(self, layout: Layout, wording: Wording) -> None:
        mark, q = wording.mark, wording.quoted
        self._mark, self._state = mark, q(layout.state)
        sessions, messages, order = q(layout.sessions), q(layout.messages), q(layout.order)
        id_, of = q(layout.message_column("id")), q(layout.message_column("session_id"))
        one = f"{of} = {mark} AND {id_} = {mark}"
        place = f"session_id = {mark} AND message_id = {mark}"
        key = (layout.session_column("id"),)
        changing = tuple(column for column in layout.session_columns if column not in key)
        self.replace_session = (
            f"INSERT INTO {sessions} ({wording.listing(layout.session_columns)})"
            f" VALUES ({wording.marks(len(layout.session_columns))}) {wording.replacing(key, changing)}"
        )
        self.replace_state = (
            f"INSERT INTO {self._state} (session_id, state) VALUES ({mark}, {mark})"
            f" {wording.replacing(('session_id',), ('state',))}"
        )
        self.insert_message = (
            f"INSERT INTO {messages} ({wording.listing(layout.message_columns)})"
            f" VALUES ({wording.marks(len(layout.message_columns))})"
        )
        self.insert_place = (
            f"INSERT INTO {order} (session_id, ordinal, message_id, told_at, item) VALUES ({wording.marks(5)})"
        )
        content, user = q(layout.message_column("content")), q(layout.message_column("user_id"))
        self.edit_message = f"UPDATE {messages} SET {content} = {mark} WHERE {one}"
        self.remove_message = f"DELETE FROM {messages} WHERE {one}"
        self.assign = f"UPDATE {messages} SET {user} = {mark} WHERE {of} = {mark}"
        self.clear_messages = f"DELETE FROM {messages} WHERE {of} = {mark}"
        older = f"SELECT message_id FROM {order} WHERE session_id = {mark} AND ordinal < {mark}"
        self.drop_messages = f"DELETE FROM {messages} WHERE {of} = {mark} AND {id_} IN ({older})"
        self.item = f"SELECT item FROM {order} WHERE {place}"
        self.items = f"SELECT item FROM {order} WHERE session_id = {mark} ORDER BY ordinal"
        self.edit_item = f"UPDATE {order} SET item = {mark} WHERE {place}"
        self.remove_place = f"DELETE FROM {order} WHERE {place}"
        self.clear_places = f"DELETE FROM {order} WHERE session_id = {mark}"
        self.newest = (
            f"SELECT ordinal, told_at FROM {order} WHERE session_id = {mark} ORDER BY ordinal DESC LIMIT {mark}"
        )
        self.drop_places = f"DELETE FROM {order} WHERE session_id = {mark} AND ordinal < {mark}"
        self.delete = (
            self.clear_messages,
            self.clear_places,
            f"DELETE FROM {self._state} WHERE session_id = {mark}",
            f"DELETE FROM {sessions} WHERE {q(key[0])} = {mark}",
        )

    def states(self, n: int) -> str:
        """Return the statement that reads the states of ``n`` sessions."""
        return f"SELECT session_id, state FROM {self._state} WHERE session_id IN ({', '.join([self._mark] * n)})"
