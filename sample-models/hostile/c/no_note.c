/* Has the table, but no note. */
#include "hostile.h"

const baton_api baton_model = {BATON_ABI_VERSION, sizeof(baton_api), 0, create, describe, run_well, destroy};
