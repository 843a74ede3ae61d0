"""The layout of encoded parts: which int64 word means what. Encoder and kernels share it.

A part's code is a list of int64 words. Operands name a buffer (a row of the table of addresses) and
a byte offset in it. Float attributes are stored by their bits. Each layout is a `Layout`: kernels
read its positions as constants, encoders fill it in by name, and `disassemble` prints it.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

STRIP_BYTES = 4096
ALIGN = 64


class Layout:
    """Consecutive words with names: `Layout("m n a@ spare:2")` is m, n, a place, and two more.

    `layout["a"]` is the position of a's first word, `len(layout)` the number of all words. A name
    that ends in @ is a place: the number of a buffer, and a byte offset in it.

    Attributes:
        fields: (first word, how many) of each name.
        places: which of them are places.
        at: the first words as attributes, as kernels read them.
    """

    def __init__(self, text: str) -> None:
        self.fields: dict[str, tuple[int, int]] = {}
        self.places: set[str] = set()
        at = 0
        for item in text.split():
            name, _, many = item.removesuffix("@").partition(":")
            width = 2 if item.endswith("@") else int(many or 1)
            if item.endswith("@"):
                self.places.add(name)
            self.fields[name] = at, width
            at += width
        self._size = at
        self.at = SimpleNamespace(**{name: first for name, (first, _) in self.fields.items()})

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, name: str) -> int:
        return self.fields[name][0]

    def pack(self, **values: int | Sequence[int]) -> list[int]:
        """The words; those of names that are not given are 0.

        Raises:
            ValueError: a name was given more or fewer words than it has.
        """
        code = [0] * self._size
        for name, value in values.items():
            first, width = self.fields[name]
            given = [value] if isinstance(value, int) else list(value)
            if len(given) != width:
                raise ValueError(f"{name} has {width} words, but {len(given)} were given.")
            code[first : first + width] = given
        return code


# Elementwise chain: header, then reg homes, inputs, ops, outputs. `strips`: byte offset of the
# strip memory in the scratch; `step`: elements a strip, whole rows where an operand repeats with
# each row; `run_ops`: address of the kernel that runs the ops on one strip. As many words as
# dimensions of the collapsed iteration space follow; the header ends after them.
CHAIN = Layout("inputs ops outputs ndim regs strips step run_ops")
CHAIN_INPUTS, CHAIN_OPS, CHAIN_OUTPUTS = CHAIN["inputs"], CHAIN["ops"], CHAIN["outputs"]
CHAIN_NDIM, CHAIN_REGS, CHAIN_STRIPS = CHAIN["ndim"], CHAIN["regs"], CHAIN["strips"]
CHAIN_STEP, CHAIN_RUN_OPS, CHAIN_DIMS = CHAIN["step"], CHAIN["run_ops"], len(CHAIN)

# A register's home: a strip number, or -1 if inputs or outputs point it at memory. `item`: bytes an
# element. As many strides as dimensions follow; the input ends after them.
INPUT = Layout("reg mode dtype at@ item")
INPUT_REG, INPUT_MODE, INPUT_DTYPE = INPUT["reg"], INPUT["mode"], INPUT["dtype"]
INPUT_BUFFER, INPUT_OFFSET = INPUT["at"], INPUT["at"] + 1
INPUT_SIZE, INPUT_STRIDES = INPUT["item"], len(INPUT)

MODE_DIRECT = 0  # contiguous and of the chain's own type: read in place
MODE_TILE = 1  # the value that the kernel around the chain has just made
MODE_RAW = 2  # an address, not a value (the random generator's state)
MODE_SCALAR = 3  # one element, copied into a strip once
MODE_STRIDED = 4  # anything else: each strip is gathered and converted
MODE_PERIODIC = 5  # the same in every strip, which holds whole rows: gathered once

# `args`: five registers; `p`, `q`: attributes; `extra`: how a scalar op rounds, a random stream.
OP = Layout("code dst args:5 p q extra")
OP_CODE, OP_DST, OP_ARGS, OP_P, OP_Q = OP["code"], OP["dst"], OP["args"], OP["p"], OP["q"]
OP_EXTRA, OP_WORDS = OP["extra"], len(OP)
OF_INTEGERS = 8  # added to the extra of a scalar op that is done in int64

OUTPUT = Layout("reg dtype at@ direct")  # direct: ops write it in place
OUTPUT_REG, OUTPUT_DTYPE = OUTPUT["reg"], OUTPUT["dtype"]
OUTPUT_BUFFER, OUTPUT_OFFSET = OUTPUT["at"], OUTPUT["at"] + 1
OUTPUT_DIRECT, OUTPUT_WORDS = OUTPUT["direct"], len(OUTPUT)

# Register tiles, see `kernels.microkernel`: what follows the product (from "bias_sigmoid" on for
# float32 only), and the parameters.
EPILOGUES: tuple[str, ...] = ("plain", "bias", "bias_relu", "relu_grad", "sgd", "momentum", "adam")
EPILOGUES += ("adam_decay", "bias_sigmoid", "bias_tanh", "bias_gelu")
EPILOGUES += ("sigmoid_grad", "tanh_grad", "gelu_grad")
# Two vectors; two, the second partly there; one, partly; one of half the lanes, partly.
TILE_WHOLE, TILE_TWO, TILE_ONE, TILE_HALF = 0, 1, 2, 3
TILE_K, TILE_A_COL, TILE_B_ROW, TILE_C_ROW = 0, 1, 2, 3  # strides in bytes
TILE_COLUMNS = 4  # lanes of the last vector
TILE_BIAS = 5  # address of a row as long as C's
TILE_STATE = 6  # two words: distance in bytes from C to arrays laid out as C
TILE_NUMBERS = 8  # scalars of the tile's own type, a word each
TILE_MAX_NUMBERS, TILE_STRIP = 8, 8  # no strip has more rows
TILE_A_ROWS = TILE_NUMBERS + TILE_MAX_NUMBERS  # distance in bytes from A to each row of the tile
# Of tiles of windows: into how many segments k falls, and the address of their distances from A.
TILE_SEGMENTS, TILE_STARTS = TILE_A_ROWS + TILE_STRIP, TILE_A_ROWS + TILE_STRIP + 1
TILE_PARAMS = TILE_STARTS + 1


def epilogues(dtype: str) -> tuple[str, ...]:
    """What can follow a product of this dtype in registers."""
    return EPILOGUES if dtype == "float32" else EPILOGUES[: EPILOGUES.index("bias_sigmoid")]


# Matrix product: C[b] = A[b] @ B[b], then an epilogue in registers, or a chain over blocks of C.
# Strides of rows, columns and batches are in bytes. `c_scratch`: 1, C lives in scratch only.
# `chain`: word offset of the chain, 0: none. `pack`: copy B into panels, 1 block by block, 2 all
# of it. `block`, `columns`: rows and columns a block. `scratch_*`: byte offsets. `chain_kernel`,
# `tiles`: addresses of the chain kernel and of the table of tiles. `pack_a`: 1, copy strips of A.
# `epilogue`: position in EPILOGUES, 0: nothing follows. `bias`, `state`, `number`: buffer -1 says
# that there is none; a number is static then, with these bits. `a_order`: the buffer by which rows
# of A are read, -1: in turn; `b_order` the same of B. `by_columns`: 1, workers share columns.
_MATRICES = " ".join(f"{x}@ {x}_row {x}_column {x}_batch {x}_spare" for x in "abc")
_NUMBERS = " ".join(f"number{i}@ bits{i}" for i in range(TILE_MAX_NUMBERS))
_MM = (
    f"m n k batch {_MATRICES} c_scratch chain pack block columns scratch_c scratch_b scratch_a "
    f"scratch_chain chain_kernel pack_a tiles epilogue bias@ state0@ state1@ {_NUMBERS} "
    "a_order b_order by_columns"
)
MM = Layout(_MM)
MM_M, MM_N, MM_K, MM_BATCH = MM["m"], MM["n"], MM["k"], MM["batch"]
MM_A, MM_B, MM_C = MM["a"], MM["b"], MM["c"]
MM_C_SCRATCH, MM_CHAIN, MM_PACK = MM["c_scratch"], MM["chain"], MM["pack"]
MM_BLOCK, MM_COLUMNS = MM["block"], MM["columns"]
MM_SCRATCH_C, MM_SCRATCH_B, MM_SCRATCH_A = MM["scratch_c"], MM["scratch_b"], MM["scratch_a"]
MM_SCRATCH_CHAIN, MM_CHAIN_KERNEL = MM["scratch_chain"], MM["chain_kernel"]
MM_PACK_A, MM_TILES, MM_EPILOGUE = MM["pack_a"], MM["tiles"], MM["epilogue"]
MM_BIAS, MM_STATE, MM_NUMBERS = MM["bias"], MM["state0"], MM["number0"]
MM_A_ORDER, MM_B_ORDER = MM["a_order"], MM["b_order"]
MM_BY_COLUMNS, MM_WORDS = MM["by_columns"], len(MM)
A_COPIED = 8  # elements of A that are copied at once; no strip has more rows

# Convolution: a product whose rows of A are windows of images (a), of B the weights (b). Its axes
# are outer, middle, inner. In bytes: `image`, `plane`, `line`, `pixel` (an element of the inner
# axis with all channels), `wide_*` the same where images are copied with `before*` zeros around.
# `planes`: how many of an image one outer position reads. `in*`, `out*`: sizes; `step*`: elements
# from window to window, `grow*`: results from one to the next. `positions`: along the outer axis,
# `block` of them at a time. `filters`, `channels`: of a group. `w_*`: elements between weights.
# Of weight gradients: `chunk`, `images`, and `taps` of the kernel, whose distances in bytes from a
# window's start follow at `reach`; `scratch_sums`, `scratch_turned`: sums as wide as vectors, and
# turned cotangents, where lanes are pixels. `passes` records stand at `first_pass`.
CONV = Layout(
    f"{_MM} image plane line pixel wide_plane wide_line copied planes before0 before1 before2 "
    "in0 in1 in2 out0 out1 out2 step0 step1 step2 grow0 grow1 grow2 positions block groups filters "
    "channels w_group w_filter w_channel chunk images taps reach passes first_pass scratch_wide "
    "scratch_rows row wide0 wide1 scratch_sums scratch_turned"
)
# A transpose that is spread has `passes` lines of `taps` taps; `row`: bytes of a cotangent's
# channels, `wide0`, `wide1`: sizes with zeros around.
# Results at `start*`, `grow*` apart, `count*` of them, which meet the same `taps` taps: their
# numbers stand at `order`, they lie in `segments` of `length` elements back to back, whose
# distances in bytes stand at `starts`. In the scratch: `weights`, its B, and `rows`, the distances
# of its windows. `by_lines`: 1, only the results of a line lie evenly apart.
PASS = Layout(
    "start0 start1 start2 count0 count1 count2 taps order segments length starts weights rows "
    "by_lines"
)
# A line of taps: the number of its `first`, how far in bytes its results are from the window's
# start, and where its B is in the scratch.
SPREAD = Layout("first reach weights")

# Reduction over the middle of (outer, red, inner). `mean`: 1, the sum is divided by the number of
# its terms. `prologue`, `epilogue`: word offsets of chains, `chain_kernel` the address that runs
# them. `out_dtype`: of the stored output. `step`: elements from a row of `inner` to the next, which
# may be farther than `inner`.
RED = Layout(
    "op red inner per_row mean in@ out@ in_dtype out_scratch prologue epilogue chain_kernel "
    "out_dtype step"
)
RED_OP, RED_RED, RED_INNER, RED_PER_ROW = RED["op"], RED["red"], RED["inner"], RED["per_row"]
RED_MEAN, RED_IN, RED_OUT, RED_IN_DTYPE = RED["mean"], RED["in"], RED["out"], RED["in_dtype"]
RED_OUT_SCRATCH, RED_PROLOGUE = RED["out_scratch"], RED["prologue"]
RED_EPILOGUE, RED_CHAIN_KERNEL = RED["epilogue"], RED["chain_kernel"]
RED_OUT_DTYPE, RED_STEP, RED_WORDS = RED["out_dtype"], RED["step"], len(RED)
RED_CODES = {"sum": 0, "max": 1, "min": 2, "argmax": 3, "argmin": 4}
RED_BLOCK, RED_MADE = 256, 4 * STRIP_BYTES  # outputs, and bytes of what a prologue makes, at a time

# Kernels of one op each. After CONCAT stands a JOINED for each input, after UNSLICE a SLICED for
# each axis but the first and those in a run; after SCALAR stand inputs (SCALAR_INPUT), ops (OP) and
# outputs (SCALAR_OUTPUT).
SOFTMAX = Layout("columns per_row logarithm source@ out@")
CROSS_ENTROPY = Layout(
    "columns per_row what label_bytes cotangent_step block logits@ labels@ cotangent@ loss@ "
    "gradient@"
)

# Attention: sizes, then operands: a place, and bytes from sequence to sequence, row to row and head
# to head. `each`: heads of q to one of k. `what`: bits of the results. `mask_kind`: 0 none, 1 of
# booleans, 2 of floats. `block`: keys a block, `rows` queries, `pitch` bytes of a row of scores.
# `tiles`, `add`: tables of tiles that store and that add. `scratch_*`: byte offsets; parameters of
# products stand first.
HEADS = 5
_OF_HEADS = " ".join(
    f"{x}@ {x}_n {x}_row {x}_head"
    for x in ("q", "k", "v", "g", "out", "sums", "delta", "mask", "dq", "dk", "dv")
)
ATTENTION = Layout(
    f"length keys heads each size value_size causal scale what block rows pitch {_OF_HEADS} "
    "mask_kind mask_column tiles add scratch_turned scratch_turned_v scratch_p scratch_d "
    "scratch_tops scratch_totals"
)
LOAD_BATCH = Layout("row_bytes order@ source@ out@")
GATHER = Layout(
    "outer size count inner_bytes index_bytes per_row outer_per_row data@ indices@ out@"
)
# `outer_per_row` 0: workers share the indexed axis itself. `chain`: word offset of what follows, 0:
# nothing; it runs over `block` rows at a time. `in_scratch`: 1, the sums live there only. `skips`:
# 1, what follows changes nothing where there is no update and the `rate` is finite.
SCATTER_ADD = Layout(
    "size count inner index_bytes outer_per_row updates@ indices@ out@ chain chain_kernel block "
    "in_scratch skips rate@ scratch_keys scratch_counts scratch_chain"
)
CONCAT, JOINED = Layout("inputs per_row row_bytes out@"), Layout("bytes source@")
UNSLICE = Layout("row_bytes item run ndim source@ out@ first rows start step")
SLICED = Layout("size step")
CUSTOM = Layout("address")

# A loop, see `kernels.rounds`. Its lists stand where `buffers` to `after` say: for each buffer of
# the body an ADDRESS, a ROUND_RECORD for each part, and COPIED rows before and after the rounds.
# `until`: the body's buffer with a bool, without which no further round begins; -1. `by_rows`: 1,
# workers share rows, and run all rounds for theirs. `inner`: where the parts' scratch begins.
LOOP = Layout(
    "rounds reverse by_rows until inner buffers many_buffers records many_records before "
    "many_before after many_after"
)
# Buffer -1: the offset is an address. In round t the body's buffer is at `place` + t * `step`, or,
# if there is an `other` place, at either by turns.
ADDRESS = Layout("place@ step other")
ROUND_RECORD = Layout("kernel code rows scratch keeps")  # keeps: 1, what it has copied there
COPIED = Layout("source@ other target@ bytes")  # `other`: the source after an odd number of rounds

# Pools of images (N, *sizes, C), see `kernels.pool`: `image`, `windows`: bytes of one in arrays
# laid out as images (a, b) and as windows (w); `window`, `hop`: bytes of a window in the latter,
# and from one window of a line to the next in the former; `tap_*`, `place_*`: bytes and flat
# indices from tap to tap; `inner` to `outer`: windows of a line that no end cuts; `loose`: the last
# element, or window, of a line behind whose whole vectors one fits. `clear`: 1, b begins as zeros.
# `chain`: word offset of what follows, 0: nothing; `in_scratch`: 1, the result lives there only.
_AXES = "size found kernel stride pad dilation tap place"
POOL = Layout(
    "per_row channels image windows window hop inner outer loose clear a@ b@ w@ "
    "chain chain_kernel scratch_chain in_scratch "
    + " ".join(f"{name}_{axis}" for name in _AXES.split() for axis in "dhw")
)
UNPOOL = Layout("count size per_row index_bytes values@ indices@ out@")
SCALAR, SCALAR_INPUT = Layout("inputs ops outputs"), Layout("dtype source@")
SCALAR_OUTPUT = Layout("value dtype out@")

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
CONTEXT_FIRST, CONTEXT_FLUSH = 7, 9  # step; 1: denormal numbers are 0
CONTEXT_WORK = 8  # of a worker, from one change of the shares to the next; 0: they stay
CONTEXT_WORDS = 10

# What the workers of a run share; each group has cache lines of its own.
SHARED_WORK = 2  # after the barrier's count and generation
SHARED_STATUS = 16  # of even phases, of odd phases, of the run
SHARED_REFUSED = 19  # an input is not what it must be
SHARED_WORKED = 24  # byte offset of a line for each worker: time worked, cost of what it did
SHARED_BOUNDS = 25  # where shares begin, and the last one's end, in parts of WHOLE
WHOLE = 1 << 16  # as gpubp.compiler.shares.WHOLE

# What a team of threads shares, see `kernels.team`.
TEAM_RUN, TEAM_CONTEXT, TEAM_WANTED, TEAM_LOOP, TEAM_BUSY = 0, 1, 2, 3, 4
TEAM_MOST = 1 << 16  # workers; the first word holds the number of the run times this, plus workers
TEAM_DONE = 8
TEAM_LINES = 16  # a line for each worker: asleep, to be woken
