"""TLS: what client and server say before they encrypt, in TCP and in QUIC."""
