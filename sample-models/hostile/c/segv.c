/* Writes to address 0. */
#include "hostile.h"

static void commit(void) {
    /* Both volatile: the compiler would see the NULL, or drop a write that nobody reads. */
    volatile int *volatile nowhere = NULL;
    *nowhere = 1;
}

SINNER("segv", commit);
