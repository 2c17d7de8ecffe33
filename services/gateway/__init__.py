"""HTTP for what the other services say over gRPC."""
