/* Every element of y is START plus the number of calls so far: tells whether code and data are fresh. */
#include "hostile.h"

static int32_t run(void *model, const baton_input *x, uint32_t inputs, baton_output *y, uint32_t outputs,
                   baton_text *error) {
    static float calls;
    int32_t status = run_well(model, x, inputs, y, outputs, error);
    if (status != BATON_OK) return status;
    calls += 1;
    for (int64_t i = 0; i < y->shape[0]; i++) ((float *)y->data)[i] = START + calls;
    return BATON_OK;
}

BATON_MODEL("hostile counter", 0, create, describe, run, destroy);
