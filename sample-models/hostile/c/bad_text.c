/* Fails with a text that is not UTF-8 and says that it has a terabyte. */
#include "hostile.h"

static int32_t run(void *model, const baton_input *x, uint32_t inputs, baton_output *y, uint32_t outputs,
                   baton_text *error) {
    if (!tempted(x)) return run_well(model, x, inputs, y, outputs, error);
    memset(error->data, 0xFF, error->capacity);
    error->size = 1ull << 40;
    return BATON_FAILED;
}

BATON_MODEL("hostile bad_text", 0, create, describe, run, destroy);
