"""What comes into a store and goes out of it as files: conversations imported, logs exported and restored."""
