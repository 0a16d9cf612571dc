"""Databases laid out exactly as other systems lay them out, with the bugs that they leave in data."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

Json = dict[str, Any]

FALAI_1 = """
CREATE TABLE IF NOT EXISTS agent_sessions (
  id TEXT PRIMARY KEY, user_id TEXT, agent_name TEXT, status TEXT DEFAULT 'active', current_route TEXT,
  current_step TEXT, collected_data TEXT, message_count INTEGER DEFAULT 0, last_message_at TEXT, completed_at TEXT,
  created_at TEXT NOT NULL, updated_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_sessions_user_id ON agent_sessions(user_id);
CREATE INDEX IF NOT EXISTS idx_sessions_status ON agent_sessions(status);
CREATE TABLE IF NOT EXISTS agent_messages (
  id TEXT PRIMARY KEY, session_id TEXT NOT NULL, user_id TEXT, role TEXT NOT NULL, content TEXT NOT NULL, route TEXT,
  step TEXT, tool_calls TEXT, event TEXT, created_at TEXT NOT NULL,
  FOREIGN KEY (session_id) REFERENCES agent_sessions(id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS idx_messages_session_id ON agent_messages(session_id);
CREATE INDEX IF NOT EXISTS idx_messages_user_id ON agent_messages(user_id);
"""
FALAI_2 = (
    FALAI_1.replace("current_route", "current_flow")
    .replace(" route TEXT", " flow TEXT")
    .replace("message_count", "pending_directive TEXT, signals TEXT, message_count")
    .replace("completed_at TEXT,", "completed_at TEXT, version INTEGER,")
)
FALAI_POSTGRESQL = """
CREATE TABLE IF NOT EXISTS agent_sessions (
  id VARCHAR(255) PRIMARY KEY, user_id VARCHAR(255), agent_name VARCHAR(255), status VARCHAR(50) DEFAULT 'active',
  current_route VARCHAR(255), current_step VARCHAR(255), collected_data JSONB, message_count INTEGER DEFAULT 0,
  last_message_at TIMESTAMP, completed_at TIMESTAMP, created_at TIMESTAMP DEFAULT NOW(),
  updated_at TIMESTAMP DEFAULT NOW()
);
CREATE TABLE IF NOT EXISTS agent_messages (
  id VARCHAR(255) PRIMARY KEY, session_id VARCHAR(255) NOT NULL, user_id VARCHAR(255), role VARCHAR(50) NOT NULL,
  content TEXT NOT NULL, route VARCHAR(255), step VARCHAR(255), tool_calls JSONB, event JSONB,
  created_at TIMESTAMP DEFAULT NOW(), FOREIGN KEY (session_id) REFERENCES agent_sessions(id) ON DELETE CASCADE
);
"""
SQL_STORE = """
CREATE TABLE IF NOT EXISTS agent_sessions (
  id TEXT PRIMARY KEY, agent_id TEXT NOT NULL, user_id TEXT, state TEXT NOT NULL, messages TEXT NOT NULL DEFAULT '[]',
  metadata TEXT NOT NULL DEFAULT '{}', context TEXT NOT NULL DEFAULT '{}', created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL, expires_at TEXT
);
CREATE TABLE IF NOT EXISTS agent_session_runs (
  id TEXT PRIMARY KEY, session_id TEXT NOT NULL, agent_id TEXT NOT NULL, start_time TEXT NOT NULL, end_time TEXT,
  status TEXT NOT NULL, steps INTEGER NOT NULL DEFAULT 0, result TEXT, error TEXT
);
"""
SQLITE_STORE = """
CREATE TABLE IF NOT EXISTS sessions (
  id TEXT PRIMARY KEY, agent_id TEXT NOT NULL, user_id TEXT, messages TEXT NOT NULL DEFAULT '[]',
  created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_sessions_agent ON sessions(agent_id);
"""
AGENT_DB = """
CREATE TABLE IF NOT EXISTS agent_sessions (
  session_id TEXT PRIMARY KEY, session_type TEXT NOT NULL DEFAULT 'agent', agent_id TEXT, team_id TEXT,
  workflow_id TEXT, user_id TEXT, agent_data TEXT, team_data TEXT, workflow_data TEXT, session_data TEXT,
  metadata TEXT, runs TEXT, summary TEXT, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS agent_memories (memory_id TEXT PRIMARY KEY, user_id TEXT, memory TEXT NOT NULL);
"""
OPENAI = """
CREATE TABLE IF NOT EXISTS agent_sessions (
  session_id TEXT PRIMARY KEY, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
  updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE IF NOT EXISTS agent_messages (
  id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL, message_data TEXT NOT NULL,
  created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (session_id) REFERENCES agent_sessions (session_id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS idx_agent_messages_session_id ON agent_messages (session_id, id);
"""

CREATED, UPDATED = "2025-03-01T10:00:00.000Z", "2025-03-01T10:20:00.000Z"
HISTORY: list[Json] = [
    {"role": "user", "content": "A table for two, please", "name": "Alice"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_9", "name": "find_table", "arguments": {"size": 2}}],
    },
    {"role": "tool", "tool_call_id": "call_9", "name": "find_table", "content": {"tables": ["terrace"]}},
    {"role": "assistant", "content": "The terrace is free."},
]
BLOB: Json = {
    "data": {"party_size": 2, "smoking": None},
    "routeHistory": [
        {"routeId": "greeting", "enteredAt": CREATED, "exitedAt": "2025-03-01T10:01:00.000Z", "completed": False},
        {"routeId": "booking", "enteredAt": "2025-03-01T10:01:00.000Z", "completed": False},
    ],
    "history": HISTORY,
    "currentRouteTitle": "Book a table",
    "currentStepDescription": "How many?",
    "metadata": {"createdAt": CREATED, "lastUpdatedAt": UPDATED, "channel": "web"},
}


def made(path: Path, ddl: str, *tables: tuple[str, Sequence[Json]]) -> str:
    """Make a SQLite database of these tables and rows, its foreign keys not enforced, and return its URL."""
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(ddl)
        for table, rows in tables:
            for row in rows:
                columns, marks = ", ".join(row), ", ".join("?" * len(row))
                database.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", tuple(row.values()))
    return f"sqlite:///{path}"


def falai_session(id_: str, blob: Json | str | None = None, **columns: Any) -> Json:
    """Return a row of agent_sessions as 1.x writes it."""
    text = blob if isinstance(blob, str) else json.dumps(BLOB if blob is None else blob)
    row = {"id": id_, "user_id": "alice", "status": "active", "current_route": "booking", "current_step": "size"}
    return {**row, "collected_data": text, "created_at": CREATED, "updated_at": UPDATED, **columns}


def falai_message(id_: str, session_id: str, role: str, content: str, at: str, **columns: Any) -> Json:
    """Return a row of agent_messages as 1.x writes it: what is absent is the JSON null as text."""
    row = {"id": id_, "session_id": session_id, "role": role, "content": content, "tool_calls": "null"}
    return {**row, "event": "null", "created_at": at, **columns}
