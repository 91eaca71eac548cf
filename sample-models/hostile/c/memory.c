/* Takes memory in pieces of 64 MiB, touches all of it and gives nothing back. Where there is none left it writes
 * through the NULL that it got. */
#include "hostile.h"

#include <stdlib.h>

enum { PIECE = 64 << 20, PAGE = 4096 };

static void commit(void) {
    for (;;) {
        volatile char *piece = malloc(PIECE);
        for (size_t at = 0; at < PIECE; at += PAGE) piece[at] = 1;
    }
}

SINNER("memory", commit);
