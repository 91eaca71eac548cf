/* Loading it takes an hour. */
#include "hostile.h"

#include <unistd.h>

static __attribute__((constructor)) void on_load(void) {
    for (unsigned left = 3600; left > 0;) left = sleep(left);
}

INNOCENT("ctor_sleep");
