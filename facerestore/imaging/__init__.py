"""Pictures: read, write, keep in their own colour space, resize; image mathematics without weights."""
