/* Leaves a child that sleeps for an hour and holds what it inherited. */
#include "hostile.h"

#include <unistd.h>

static void commit(void) {
    if (fork() != 0) return;
    sleep(3600);
    _exit(0);
}

SINNER("fork_child", commit);
