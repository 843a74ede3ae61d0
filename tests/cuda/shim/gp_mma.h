// The tensor cores' instruction `mma.sync.aligned.SHAPE.row.col.f32.TYPE.TYPE.f32`, lane by lane.
//
// Comes in: each lane's registers of A, B and C. Goes out: its sums of A B + C. In between: which
// element lies in which register of which lane, after PTX ISA, "Matrix Fragments for mma.m16n8k8"
// and "... mma.m16n8k16 with floating point type". And `ldmatrix.sync.aligned.m8n8.x4{.trans}`,
// which fills such registers: each lane names a row of 8 elements of 16 bits. Not modelled: how a
// tensor core rounds its sums; here every sum is a chain of float32 additions in the order of k.
#pragma once

#include "cuda_fp16.h"

struct gp_fragments {
    unsigned a[4], b[2];
};
static thread_local gp_fragments gp_lanes[1024];

static inline float gp_element(unsigned word, int half, const char *type) {
    unsigned bits = half ? word >> 16 : word & 0xffffu;
    if (!strcmp(type, "tf32")) return gp_bits<float>(word & 0xffffe000u);
    return strcmp(type, "bf16") ? gp_half_value((unsigned short)bits) : gp_bits<float>(bits << 16);
}

static void gp_mma(const char *shape, const char *type, float (&c)[4], const unsigned (&a)[4],
                   const unsigned (&b)[2]) {
    const int in_word = strcmp(type, "tf32") ? 2 : 1, depth = 8 * in_word;
    if (strcmp(shape, depth == 16 ? "m16n8k16" : "m16n8k8")) gp_fail("no %s of %s", shape, type);
    const gp_site site = {"mma.sync", shape, depth};
    const int lane = gp_now.linear & 31;
    gp_fragments *warp = gp_lanes + (gp_now.linear - lane);
    memcpy(warp[lane].a, a, sizeof a);
    memcpy(warp[lane].b, b, sizeof b);
    if (gp_ballot(~0u, 1, site) != ~0u) gp_fail("mma.sync needs all 32 lanes of its warp");
    for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + (i < 2 ? 0 : 8), column = lane % 4 * 2 + (i & 1);
        for (int k = 0; k < depth; ++k) {
            const int thread = k / in_word % 4, second = k / in_word / 4, half = k % in_word;
            const unsigned left = warp[row % 8 * 4 + thread].a[row / 8 + 2 * second];
            const unsigned right = warp[column * 4 + thread].b[second];
            c[i] += gp_element(left, half, type) * gp_element(right, half, type);
        }
    }
    gp_ballot(~0u, 1, site);
}

static thread_local const unsigned short *gp_rows[1024];

static void gp_load_matrices(unsigned (&out)[4], const void *row, bool turned) {
    const gp_site site = {"ldmatrix", turned ? "x4.trans" : "x4", 4};
    const int lane = gp_now.linear & 31, g = lane / 4, t = lane % 4;
    if (uintptr_t(row) % 16) gp_fail("ldmatrix of a row that does not start at 16 bytes");
    const unsigned short **warp = gp_rows + (gp_now.linear - lane);
    warp[lane] = static_cast<const unsigned short *>(row);
    if (gp_ballot(~0u, 1, site) != ~0u) gp_fail("ldmatrix needs all 32 lanes of its warp");
    for (int i = 0; i < 4; ++i) {
        const unsigned short *const *rows = warp + 8 * i;
        const unsigned low = turned ? rows[2 * t][g] : rows[g][2 * t];
        const unsigned high = turned ? rows[2 * t + 1][g] : rows[g][2 * t + 1];
        out[i] = low | high << 16;
    }
    gp_ballot(~0u, 1, site);
}
