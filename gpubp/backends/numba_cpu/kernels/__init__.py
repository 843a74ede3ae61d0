"""CPU kernels: compiled once per machine, loaded as object code ever after.

Every kernel is a function `(code, bases, row0, row1, tile, scratch) -> status` of six int64: the
address of its encoded part, the address of the table of buffer addresses, its share of the rows,
the address of a value that the calling kernel made (see `chain`; 0 from the run loop), and the
address of this worker's scratch memory. A kernel never calls another one but through its address.

They are written in `language`, a small part of Python, which `translate` turns into LLVM's. That is
imported only where the object code of a kernel is not in the cache.
"""
