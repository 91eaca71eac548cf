/* Divides by zero: SIGFPE. */
#include "hostile.h"

#include <signal.h>

static void commit(void) {
    volatile int zero = 0, result = 1;
    result = result / zero;
    raise(SIGFPE); /* processors other than x86 give 0 and go on */
}

SINNER("fpe", commit);
