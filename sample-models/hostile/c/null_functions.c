/* Its table has no functions. */
#include "hostile.h"

BATON_MODEL("hostile null_functions", 0, NULL, NULL, NULL, NULL);
