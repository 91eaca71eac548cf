/* Has the note twice. */
#include "hostile.h"

BATON_NOTE("hostile two_notes, the other");

INNOCENT("two_notes");
