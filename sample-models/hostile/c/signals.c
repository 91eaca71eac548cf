/* Changes what belongs to the whole process: signals, folder, environment, locale, file mask, rounding of floats. */
#include "hostile.h"

#include <fenv.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void commit(void) {
    for (int number = 1; number < NSIG; number++) signal(number, SIG_IGN);
    if (chdir("/proc") != 0) abort();
    setenv("PATH", "/nowhere", 1);
    setlocale(LC_ALL, "C.UTF-8");
    umask(0777);
    fesetround(FE_UPWARD);
}

SINNER("signals", commit);
