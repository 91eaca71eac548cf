/* Says that it wrote more than the buffer holds. */
#include "hostile.h"

static int32_t lie(baton_output *y) {
    y->shape[0] = (int64_t)(y->capacity / sizeof(float)) + 1000;
    y->size = (uint64_t)y->shape[0] * sizeof(float);
    return BATON_OK;
}

LIAR("bad_size", lie);
