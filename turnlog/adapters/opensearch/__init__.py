"""OpenSearch 2: sessions and messages as documents that follow any store's log, to be searched and counted.

It is no log: a request that changes several documents can end in the midst of them. So nothing here is asked to be
atomic but the write of one document, and moving aliases.

- Atomicity: a document carries, as its external version, the position up to which the log made it what it is; one that
  is older never replaces it. The checkpoint is a document too, beside the data, and is written last: what a crash
  leaves undone is done again, to the same effect. See writing.py.
- Order: documents of messages are there before that of their session, and that before the checkpoint.
- Durability: the server's own: acknowledged is what is in the translog of a shard's every copy in sync.

Read client.py, layout.py, folding.py (from the log to documents), writing.py, views.py, searching.py, analytics.py.
"""
