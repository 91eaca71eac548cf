/* Ends the process while it is being loaded. */
#include "hostile.h"

#include <unistd.h>

static __attribute__((constructor)) void on_load(void) { _exit(0); }

INNOCENT("ctor_exit");
