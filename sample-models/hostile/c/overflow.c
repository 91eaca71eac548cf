/* Calls itself until the stack has no more room. */
#include "hostile.h"

static volatile int forever = 1;

static __attribute__((noinline)) int deeper(int depth) {
    volatile char frame[1024];
    frame[0] = (char)depth;
    if (forever) depth += deeper(depth + 1);
    return depth + frame[0]; /* work behind the call, or it would become a loop */
}

static void commit(void) { deeper(0); }

SINNER("overflow", commit);
