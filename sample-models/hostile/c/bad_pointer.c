/* Hands back a pointer and a capacity of its own. */
#include "hostile.h"

static int32_t lie(baton_output *y) {
    y->data = (uint8_t *)8;
    y->capacity = UINT64_MAX;
    return BATON_OK;
}

LIAR("bad_pointer", lie);
