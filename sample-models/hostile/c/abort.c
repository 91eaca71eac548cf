/* Ends the process with SIGABRT. */
#include "hostile.h"

#include <stdlib.h>

SINNER("abort", abort);
