/* Needs a buffer of 2^60 bytes. */
#include "hostile.h"

static int32_t lie(baton_output *y) {
    y->size = 1ull << 60;
    return BATON_MORE;
}

LIAR("huge_more", lie);
