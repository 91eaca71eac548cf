/* Says that its output has 1000 dimensions. */
#include "hostile.h"

static int32_t lie(baton_output *y) {
    y->rank = 1000;
    return BATON_OK;
}

LIAR("bad_rank", lie);
