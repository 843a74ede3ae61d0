"""The layout of encoded parts: which int64 word means what. Encoder and kernels share it.

A part's code is a list of int64 words. Operands name a buffer (a row of the table of addresses) and
a byte offset in it. Float attributes are stored by their bits.
"""

from __future__ import annotations

STRIP_BYTES = 4096
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
CHAIN_DIMS = 8  # as many words as dimensions; the header ends after them

# A register's home: a strip number, or -1 if inputs or outputs point it at memory.
INPUT_REG = 0
INPUT_MODE = 1
INPUT_DTYPE = 2
INPUT_BUFFER = 3
INPUT_OFFSET = 4
INPUT_SIZE = 5  # bytes an element
INPUT_STRIDES = 6  # as many words as dimensions; the input ends after them

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
OF_INTEGERS = 8  # added to the extra of a scalar op that is done in int64

OUTPUT_REG = 0
OUTPUT_DTYPE = 1
OUTPUT_BUFFER = 2
OUTPUT_OFFSET = 3
OUTPUT_DIRECT = 4  # ops write it in place
OUTPUT_WORDS = 5

# Register tiles, see `kernels.microkernel`: what follows the product, and the parameters.
# Those from "bias_sigmoid" on are there for float32 only.
EPILOGUES: tuple[str, ...] = ("plain", "bias", "bias_relu", "relu_grad", "sgd", "momentum", "adam")
EPILOGUES += ("adam_decay",)
EPILOGUES += ("bias_sigmoid", "bias_tanh", "bias_gelu", "sigmoid_grad", "tanh_grad", "gelu_grad")
TILE_WHOLE, TILE_TWO, TILE_ONE = 0, 1, 2  # two vectors; two, the second partly there; one, partly
TILE_KINDS = 3
TILE_K, TILE_A_COL, TILE_B_ROW, TILE_C_ROW = 0, 1, 2, 3  # strides in bytes
TILE_COLUMNS = 4  # lanes of the last vector
TILE_BIAS = 5  # address of a row as long as C's
TILE_STATE = 6  # two words: distance in bytes from C to arrays laid out as C
TILE_NUMBERS = 8  # scalars of the tile's own type, a word each
TILE_MAX_NUMBERS = 8
TILE_A_ROWS = TILE_NUMBERS + TILE_MAX_NUMBERS  # distance in bytes from A to each row of the tile
TILE_PARAMS = TILE_A_ROWS + 8


def epilogues(dtype: str) -> tuple[str, ...]:
    """What can follow a product of this dtype in registers."""
    return EPILOGUES if dtype == "float32" else EPILOGUES[: EPILOGUES.index("bias_sigmoid")]


# Matrix product: C[b] = A[b] @ B[b], then an epilogue in registers, or a chain over blocks of C.
MM_M, MM_N, MM_K, MM_BATCH = 0, 1, 2, 3
MM_A, MM_B, MM_C = 4, 10, 16  # each: buffer, byte offset, row, column, batch stride (bytes), spare
MM_C_SCRATCH = 22  # 1: C lives in scratch only
MM_CHAIN = 23  # word offset of the chain, 0: none
MM_PACK = 24  # copy B into panels: 1 block by block, 2 all of it
MM_BLOCK = 25  # rows a block
MM_COLUMNS = 26  # columns a block
MM_SCRATCH_C, MM_SCRATCH_B, MM_SCRATCH_A, MM_SCRATCH_CHAIN = 27, 28, 29, 30  # byte offsets
MM_CHAIN_KERNEL = 31  # address of the chain kernel
MM_PACK_A = 32  # 1: copy strips of A
MM_TILES = 33  # address of the table of tiles
MM_EPILOGUE = 34  # position in EPILOGUES
MM_BIAS = 35  # buffer (-1: none), byte offset
MM_STATE = 37  # twice: buffer (-1: none), byte offset
# TILE_MAX_NUMBERS times: buffer (-1: none, the number is static), byte offset, static bits
MM_NUMBERS = 41
MM_A_ORDER = MM_NUMBERS + 3 * TILE_MAX_NUMBERS  # buffer: rows of A are read by it; -1: in turn
MM_B_ORDER = MM_A_ORDER + 1  # the same of B
MM_BY_COLUMNS = MM_B_ORDER + 1  # 1: workers share columns
MM_WORDS = MM_BY_COLUMNS + 1
A_COPIED = 8  # elements of A that are copied at once; no strip has more rows

# Reduction over the middle of (outer, red, inner).
RED_OP, RED_RED, RED_INNER, RED_PER_ROW = 0, 1, 2, 3
RED_MEAN = 4  # 1: the sum is divided by the number of its terms
RED_IN, RED_OUT = 5, 7  # each: buffer, byte offset
RED_IN_DTYPE, RED_OUT_SCRATCH, RED_PROLOGUE, RED_EPILOGUE = 9, 10, 11, 12
RED_CHAIN_KERNEL = 13  # address of the chain kernel
RED_OUT_DTYPE = 14  # of the stored output
RED_STEP = 15  # elements from a row of `inner` to the next, which may be farther than `inner`
RED_WORDS = 16
RED_CODES = {"sum": 0, "max": 1, "min": 2, "argmax": 3, "argmin": 4}
RED_BLOCK = 256  # outputs at a time

# What is looked at before any work, see `kernels.loop`.
CHECK_WHAT, CHECK_ADDRESS, CHECK_OFFSET, CHECK_COUNT, CHECK_STRIDE, CHECK_LIMIT = range(6)
CHECK_WORDS = 6  # the address is the array's, the offset in bytes, the stride in elements
CHECK_INT32, CHECK_INT64, CHECK_FLOAT32, CHECK_FLOAT64 = 0, 1, 2, 3

# The run loop: one record a part.
RECORD_KERNEL, RECORD_CODE, RECORD_ROWS, RECORD_SYNC = 0, 1, 2, 3
RECORD_COST = 4  # of a row, in any unit
RECORD_GRAIN = 5  # of its shares
RECORD_WORDS = 6

SPINS = 2000  # looks at a word before other threads may have the core
LINGER = 200  # more looks, each after such an offer, before a thread sleeps

# The context of a run.
CONTEXT_STOP = 0  # the step to stop before
CONTEXT_SCHEDULE, CONTEXT_PROGRAMS, CONTEXT_SHARED, CONTEXT_WORKERS = 1, 2, 3, 4
CONTEXT_CHECKS, CONTEXT_CHECK_LIST = 5, 6  # how many, and where
CONTEXT_FIRST = 7  # step
CONTEXT_WORK = 8  # of a worker, from one change of the shares to the next; 0: they stay
CONTEXT_WORDS = 9

# What the workers of a run share; each group has cache lines of its own.
SHARED_WORK = 2  # after the barrier's count and generation
SHARED_STATUS = 16  # of even phases, of odd phases, of the run
SHARED_REFUSED = 19  # an input is not what it must be
SHARED_WORKED = 24  # byte offset of a line for each worker: time worked, cost of what it did
SHARED_BOUNDS = 25  # where shares begin, and the last one's end, in parts of WHOLE
WHOLE = 1 << 16  # as gpubp.compiler.program.WHOLE

# What a team of threads shares, see `kernels.team`.
TEAM_RUN, TEAM_CONTEXT, TEAM_WANTED, TEAM_LOOP, TEAM_BUSY = 0, 1, 2, 3, 4
TEAM_MOST = 1 << 16  # workers; the first word holds the number of the run times this, plus workers
TEAM_DONE = 8
TEAM_LINES = 16  # a line for each worker: asleep, to be woken
