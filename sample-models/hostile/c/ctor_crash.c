/* Crashes while it is being loaded. */
#include "hostile.h"

static __attribute__((constructor)) void on_load(void) {
    volatile int *volatile nowhere = NULL;
    *nowhere = 1;
}

INNOCENT("ctor_crash");
