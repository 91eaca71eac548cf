/* Writes BYTES behind the end of its output's buffer. */
#include "hostile.h"

static int32_t lie(baton_output *y) {
    memset(y->data + y->capacity, 0xAB, BYTES);
    return BATON_OK;
}

LIAR("overrun", lie);
