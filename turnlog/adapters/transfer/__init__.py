"""What goes in and out: conversations in the neutral form, the log as a file, a log from another store."""
