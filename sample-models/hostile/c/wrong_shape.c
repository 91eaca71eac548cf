/* Its shape has one element more than its size. */
#include "hostile.h"

static int32_t lie(baton_output *y) {
    y->shape[0] += 1;
    return BATON_OK;
}

LIAR("wrong_shape", lie);
