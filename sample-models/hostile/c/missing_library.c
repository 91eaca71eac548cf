/* Harmless, but linked to libdoesnotexist.so.1: the build makes that library and removes it. */
#include "hostile.h"

INNOCENT("missing_library");
