"""What comes in and goes out: conversations imported, logs exported, restored and copied from another store."""
