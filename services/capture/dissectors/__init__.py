"""Protocols: from the octets of streams and datagrams to calls. No sockets, no asyncio, no gRPC."""
