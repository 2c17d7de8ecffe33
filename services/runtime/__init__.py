"""How every process starts, serves and ends."""
