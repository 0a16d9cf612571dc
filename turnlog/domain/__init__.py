"""The pure core: events, commands, and the functions between them. No I/O, no clock, no randomness, no driver."""
