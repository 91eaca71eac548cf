/* Always needs twice the buffer that it gets. */
#include "hostile.h"

static int32_t lie(baton_output *y) {
    y->size = 2 * y->capacity + 1;
    return BATON_MORE;
}

LIAR("more_forever", lie);
