/* Never returns, and keeps a core busy. */
#include "hostile.h"

static void commit(void) {
    for (;;) __asm__ volatile("");
}

SINNER("loop", commit);
