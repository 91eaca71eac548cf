/* Says that only the first 8 bytes of its table are there. */
#include "hostile.h"

BATON_NOTE("hostile short_table");

const baton_api baton_model = {BATON_ABI_VERSION, 8, 0, create, describe, run_well, destroy};
