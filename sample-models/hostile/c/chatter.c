/* Writes 10 MB to the standard output and 10 MB to the standard error. */
#include "hostile.h"

#include <stdio.h>

static void commit(void) {
    static const char LINE[] = "this library likes to talk, and has much to say about nothing at all\n";
    for (size_t written = 0; written < 10000000; written += sizeof LINE - 1) {
        fputs(LINE, stdout);
        fputs(LINE, stderr);
    }
    fflush(stdout);
}

SINNER("chatter", commit);
