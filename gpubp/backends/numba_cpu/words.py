"""The layout of encoded parts: which int64 word means what. Encoder and kernels share it.

A part's code is a list of int64 words. Operands name a buffer (a row of the table of addresses) and
a byte offset in it. Float attributes are stored by their bits.
"""

from __future__ import annotations

STRIP_BYTES = 4096
MAX_DIMS = 6
ALIGN = 64

# Elementwise chain: header, then reg homes, inputs, ops, outputs.
CHAIN_INPUTS = 0  # how many
CHAIN_OPS = 1
CHAIN_OUTPUTS = 2
CHAIN_NDIM = 3  # of the collapsed iteration space
CHAIN_REGS = 4
CHAIN_STRIPS = 5  # byte offset of the strip memory in the scratch
CHAIN_STEP = 6  # elements a strip: whole rows where an operand repeats with each row
CHAIN_RUN_OPS = 7  # address of the kernel that runs the ops on one strip
CHAIN_DIMS = 8
CHAIN_HEADER = CHAIN_DIMS + MAX_DIMS

# A register's home: a strip number, or -1 if inputs or outputs point it at memory.
INPUT_REG = 0
INPUT_MODE = 1
INPUT_DTYPE = 2
INPUT_BUFFER = 3
INPUT_OFFSET = 4
INPUT_SIZE = 5  # bytes an element
INPUT_STRIDES = 6
INPUT_WORDS = INPUT_STRIDES + MAX_DIMS

MODE_DIRECT = 0  # contiguous and of the chain's own type: read in place
MODE_TILE = 1  # the value that the kernel around the chain has just made
MODE_RAW = 2  # an address, not a value (the random generator's state)
MODE_SCALAR = 3  # one element, copied into a strip once
MODE_STRIDED = 4  # anything else: each strip is gathered and converted
MODE_PERIODIC = 5  # the same in every strip, which holds whole rows: gathered once

OP_CODE = 0
OP_DST = 1
OP_ARGS = 2  # five registers
OP_P = 7
OP_Q = 8
OP_EXTRA = 9  # rounding of a scalar op, stream of a random one
OP_WORDS = 10

OUTPUT_REG = 0
OUTPUT_DTYPE = 1
OUTPUT_BUFFER = 2
OUTPUT_OFFSET = 3
OUTPUT_DIRECT = 4  # ops write it in place
OUTPUT_WORDS = 5

# Matrix product: C[b] = A[b] @ B[b], then a chain over C.
MM_M, MM_N, MM_K, MM_BATCH = 0, 1, 2, 3
MM_A, MM_B, MM_C = 4, 10, 16  # each: buffer, byte offset, row, column, batch stride (bytes), spare
MM_C_SCRATCH = 22  # 1: C lives in scratch only
MM_CHAIN = 23  # word offset of the chain, 0: none
MM_PACK = 24  # 1: copy B into panels
MM_BLOCK = 25  # rows a block
MM_SCRATCH = 26  # byte offsets in scratch: tile, then pack, then chain
MM_SCRATCH_PACK = 27
MM_SCRATCH_CHAIN = 28
MM_CHAIN_KERNEL = 29  # address of the chain kernel
MM_PACK_A = 30  # 1: copy strips of A
MM_SCRATCH_A = 31
MM_WORDS = 32

# Reduction over the middle of (outer, red, inner).
RED_OP, RED_RED, RED_INNER, RED_PER_ROW = 0, 1, 2, 3
RED_IN, RED_OUT = 5, 7  # each: buffer, byte offset
RED_IN_DTYPE, RED_OUT_SCRATCH, RED_PROLOGUE, RED_EPILOGUE = 9, 10, 11, 12
RED_CHAIN_KERNEL = 13  # address of the chain kernel
RED_OUT_DTYPE = 14  # of the stored output
RED_WORDS = 15
RED_CODES = {"sum": 0, "max": 1, "min": 2, "argmax": 3, "argmin": 4}
RED_BLOCK = 256  # outputs at a time

# The run loop: one record a part.
RECORD_KERNEL, RECORD_CODE, RECORD_ROWS, RECORD_SYNC = 0, 1, 2, 3
RECORD_WORDS = 4
