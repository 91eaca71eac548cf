/* Ends the process as if all was well. */
#include "hostile.h"

#include <stdlib.h>

static void commit(void) { exit(0); }

SINNER("exit", commit);
