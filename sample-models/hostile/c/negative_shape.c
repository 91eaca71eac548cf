/* Answers with -1 elements. */
#include "hostile.h"

static int32_t lie(baton_output *y) {
    y->shape[0] = -1;
    return BATON_OK;
}

LIAR("negative_shape", lie);
