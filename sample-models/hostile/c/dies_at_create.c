/* Crashes where the model is made. */
#include "hostile.h"

#include <stdlib.h>

static int32_t create_and_die(void **model, baton_text *error) {
    (void)model, (void)error;
    abort();
}

BATON_MODEL("hostile dies_at_create", 0, create_and_die, describe, run_well, destroy);
