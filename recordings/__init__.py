"""What a recording is on disk: schemas, folders, manifest, journal, segments. Knows no service."""
