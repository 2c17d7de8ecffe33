"""Names for addresses: which pod, service, node or DNS name had one when a packet came.

`watch` reads lists and watches of the API server, `objects` what is needed of each object, and
`cluster` makes of them who has which address since when. These are changes, which `names` takes,
in this process or in others (`feed`); capture looks up whole batches there. `dnsnames` adds what
DNS answers said.
"""
