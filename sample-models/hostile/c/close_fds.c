/* Closes the descriptors of whoever called. */
#include "hostile.h"

#include <unistd.h>

static void commit(void) {
    for (int fd = 3; fd < 1024; fd++) close(fd);
}

SINNER("close_fds", commit);
