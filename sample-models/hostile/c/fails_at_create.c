/* Cannot make the model, and says so as it should. */
#include "hostile.h"

static int32_t create_fails(void **model, baton_text *error) {
    (void)model;
    write_text(error, "no coefficients today");
    return BATON_FAILED;
}

BATON_MODEL("hostile fails_at_create", 0, create_fails, describe, run_well, destroy);
