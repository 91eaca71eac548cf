/* Returns a status that does not exist. */
#include "hostile.h"

static int32_t lie(baton_output *y) {
    (void)y;
    return 9999;
}

LIAR("bad_status", lie);
