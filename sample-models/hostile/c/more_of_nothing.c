/* Asks for more, but the size that it needs is there. */
#include "hostile.h"

static int32_t lie(baton_output *y) {
    (void)y;
    return BATON_MORE;
}

LIAR("more_of_nothing", lie);
