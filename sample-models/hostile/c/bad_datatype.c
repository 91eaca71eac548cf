/* Says that its output is FP16, with a shape that goes with the size. */
#include "hostile.h"

static int32_t lie(baton_output *y) {
    y->datatype = BATON_FP16;
    y->shape[0] *= 2;
    return BATON_OK;
}

LIAR("bad_datatype", lie);
