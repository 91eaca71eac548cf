/* Exports a function and a variable that its other variant exports too: y = FACTOR * x, if they are kept apart.
 * With UNIQUE the variable is of the kind that C++ gives to inline ones: the loader then keeps one of them for the
 * whole process, even under RTLD_LOCAL, and the variant that is loaded second answers with the factor of the first. */
#include "hostile.h"

#define EXPORTED __attribute__((visibility("default")))

EXPORTED float shared_factor;
EXPORTED float shared_multiply(float x);

EXPORTED float shared_factor = FACTOR;
#ifdef UNIQUE
__asm__(".type shared_factor, @gnu_unique_object");
#endif

EXPORTED float shared_multiply(float x) { return x * shared_factor; }

static int32_t run(void *model, const baton_input *x, uint32_t inputs, baton_output *y, uint32_t outputs,
                   baton_text *error) {
    int32_t status = run_well(model, x, inputs, y, outputs, error);
    if (status != BATON_OK) return status;
    for (int64_t i = 0; i < y->shape[0]; i++) ((float *)y->data)[i] = shared_multiply(((const float *)x->data)[i]);
    return BATON_OK;
}

BATON_MODEL("hostile globals", 0, create, describe, run, destroy);
