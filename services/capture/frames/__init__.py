"""Where frames come from: an interface, or a capture file."""
