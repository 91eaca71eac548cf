/* Has the note, but no table. */
#include "hostile.h"

BATON_NOTE("hostile no_symbol");
