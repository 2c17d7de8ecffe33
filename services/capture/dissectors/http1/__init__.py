"""HTTP/1.0 and 1.1 (RFC 9110, RFC 9112): `framing` finds messages, `exchange` pairs them, `entries`
makes columns of those that are asked for.
"""
