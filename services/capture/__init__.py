"""The capture agent: from frames to entries, and from matched streams to the scheduler."""
