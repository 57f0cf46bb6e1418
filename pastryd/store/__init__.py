"""The node's store (DESIGN sec. 8): one contract, on disk (LMDB) and in memory."""
