/* Calls a function that no library has. */
#include "hostile.h"

void baton_function_that_does_not_exist(void);

SINNER("undefined_symbol", baton_function_that_does_not_exist);
